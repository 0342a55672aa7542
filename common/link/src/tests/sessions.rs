//! Sessions over real loopback QUIC: what is sent arrives, once, in order, whole.

use super::*;
use fleetwire_common::{
    envelope::OpenError,
    fb,
    message::{Ack, Message, MessageRef},
};

#[tokio::test]
async fn a_message_goes_each_way_and_the_agent_knows_cluster_time() {
    let mut cluster = Cluster::start();
    let (mut agent, mut scheduler) = cluster.session("pi-1").await;
    agent.link.sender.send(status(3)).unwrap();
    assert_eq!(scheduler.receive(1, index_of).await, [3]);
    scheduler.link.sender.send(Message::Ack(Ack::Request(9))).unwrap();
    let answered = agent.receive(1, |message| matches!(message, MessageRef::Ack(ack) if ack.request() == 9)).await;
    assert_eq!(answered, [true]);
    assert!(agent.clock.now().0.abs_diff(scheduler.clock.now().0) < 1_000_000);
}

#[tokio::test]
async fn many_messages_arrive_once_in_order_and_travel_as_batches() {
    let mut cluster = Cluster::start();
    let (agent, mut scheduler) = cluster.session("pi-1").await;
    agent.link.sender.send_many((0..20_000).map(status)).unwrap();
    let mut frames = Vec::new();
    let mut came = Vec::new();
    let mut count = 0;
    while came.len() < 20_000 {
        soon(scheduler.link.receiver.recv_many(&mut frames)).await.unwrap();
        count += frames.len();
        for frame in frames.drain(..) {
            let tolerance = frame.tolerance_ms();
            let opened = scheduler.link.opener.open(&frame.bytes, 0, frame.arrived_ms, tolerance).unwrap();
            came.extend(opened.messages().map(|(_, message)| index_of(message)));
        }
    }
    assert_eq!(came, (0..20_000).collect::<Vec<_>>());
    assert!(count < 400, "20,000 messages took {count} frames");
}

/// A datagram's bytes are copied by the transport when it takes them from its socket's buffer, decrypted there, and
/// then read where they are: a frame is a slice of the chunk (`frames.rs`), and a message is a view of its frame.
#[tokio::test]
async fn what_is_read_lies_in_the_frame_that_came() {
    let mut cluster = Cluster::start();
    let (agent, mut scheduler) = cluster.session("pi-1").await;
    agent.link.sender.send(log(1, 300)).unwrap();
    let mut frames = Vec::new();
    soon(scheduler.link.receiver.recv_many(&mut frames)).await.unwrap();
    let frame = &frames[0];
    let opened = scheduler.link.opener.open(&frame.bytes, 0, frame.arrived_ms, frame.tolerance_ms()).unwrap();
    let Some(MessageRef::LogChunk(chunk)) = opened.message() else { panic!("something else came") };
    let data = chunk.data().unwrap().bytes().as_ptr_range();
    let whole = frame.bytes.as_ptr_range();
    assert!(whole.contains(&data.start) && data.end <= whole.end);
}

#[tokio::test]
async fn a_sender_waits_until_what_it_queued_was_taken() {
    let mut cluster = Cluster::start();
    let (agent, mut scheduler) = cluster.session("pi-1").await;
    agent.link.sender.send_many((0..100).map(status)).unwrap();
    agent.link.sender.send(log(100, 3 << 20)).unwrap();
    soon(agent.link.sender.drained(usize::MAX)).await;
    assert_eq!(agent.link.sender.messages_waiting(), 0);
    scheduler.receive(101, |_| ()).await;
    soon(agent.link.sender.drained(0)).await;
    assert_eq!(agent.link.sender.bulk_bytes_waiting(), 0);
    assert!(agent.link.sender.datagrams_sent() > 2_000);
    agent.link.sender.send(status(1)).unwrap();
    agent.link.sender.abort(fb::ErrorCode::None, "enough");
    soon(agent.link.sender.drained(0)).await;
}

#[tokio::test]
async fn three_megabytes_go_each_way_beside_small_messages() {
    let mut cluster = Cluster::start();
    let (mut agent, mut scheduler) = cluster.session("pi-1").await;
    let bytes = |message: MessageRef<'_>| match message {
        MessageRef::LogChunk(chunk) => (chunk.request(), chunk.data().unwrap().len()),
        other => (u64::from(index_of(other)), 0),
    };
    let senders = (agent.link.sender.clone(), scheduler.link.sender.clone());
    for (from, to) in [(senders.0, &mut scheduler), (senders.1, &mut agent)] {
        from.send(log(100, 3 << 20)).unwrap();
        from.send_bulk(log(101, 10)).unwrap();
        from.send(log(102, 3 << 20)).unwrap();
        from.send(status(1)).unwrap();
        let mut came = to.receive(4, bytes).await;
        assert_eq!(came[0], (1, 0), "the small message waited for bulk");
        came.remove(0);
        assert_eq!(came, [(100, 3 << 20), (101, 10), (102, 3 << 20)]);
    }
    assert_eq!(agent.link.sender.messages_waiting(), 0);
}

// §transport-4
#[tokio::test]
async fn a_closed_link_delivers_what_was_queued_and_tells_the_reason() {
    let mut cluster = Cluster::start();
    let (agent, mut scheduler) = cluster.session("pi-1").await;
    agent.link.sender.send_many((0..100).map(status)).unwrap();
    agent.link.sender.send(log(5, 500_000)).unwrap();
    agent.link.sender.close(fb::ErrorCode::ShuttingDown, "the device shuts down");
    assert_eq!(agent.link.sender.send(status(0)), Err(SendError::Closed));
    scheduler.receive(101, |_| ()).await;
    let told = LinkClosed::ByPeer { code: fb::ErrorCode::ShuttingDown, reason: "the device shuts down".into() };
    assert_eq!(scheduler.ended().await, told);
    assert_eq!(soon(agent.link.sender.closed()).await.code(), fb::ErrorCode::ShuttingDown);
}

#[tokio::test]
async fn a_frame_of_another_session_is_refused() {
    let mut cluster = Cluster::start();
    let (agent, mut scheduler) = cluster.session("pi-1").await;
    let (_other_agent, mut other) = cluster.session("pi-1").await;
    agent.link.sender.send(status(1)).unwrap();
    let mut frames = Vec::new();
    soon(scheduler.link.receiver.recv_many(&mut frames)).await.unwrap();
    let frame = &frames[0];
    let error = other.link.opener.open(&frame.bytes, 0, frame.arrived_ms, frame.tolerance_ms()).unwrap_err();
    assert_eq!(error, OpenError::Signature);
    let mut open = || scheduler.link.opener.open(&frame.bytes, 0, frame.arrived_ms, frame.tolerance_ms()).map(|_| ());
    assert_eq!(open(), Ok(()));
    assert_eq!(open(), Err(OpenError::Sequence { stream: 0, found: 0, expected: 1 }));
}

#[tokio::test]
async fn what_came_before_the_end_can_be_read_after_it() {
    let mut cluster = Cluster::start();
    let (agent, mut scheduler) = cluster.session("pi-1").await;
    agent.link.sender.send_many((0..50).map(status)).unwrap();
    agent.link.sender.send_bulk(log(5, 40_000)).unwrap();
    agent.link.sender.close(fb::ErrorCode::None, "done");
    // Everything has arrived, nothing was read, the connection has ended.
    soon(agent.link.sender.closed()).await;
    let mut came = scheduler
        .receive(51, |message| match message {
            MessageRef::LogChunk(chunk) => 1_000 + chunk.data().unwrap().len() as u32,
            other => index_of(other),
        })
        .await;
    came.sort_unstable();
    assert_eq!(came, (0..50).chain([41_000]).collect::<Vec<_>>());
    let told = LinkClosed::ByPeer { code: fb::ErrorCode::None, reason: "done".into() };
    assert_eq!((scheduler.ended().await, scheduler.ended().await), (told.clone(), told));
}

#[tokio::test]
async fn dropping_the_last_sender_ends_the_session_in_order() {
    let mut cluster = Cluster::start();
    let (agent, mut scheduler) = cluster.session("pi-1").await;
    let Link { sender, receiver: _receiver, .. } = agent.link;
    let clone = sender.clone();
    drop(sender);
    clone.send(status(1)).unwrap();
    drop(clone);
    assert_eq!(scheduler.receive(1, index_of).await, [1]);
    assert_eq!(scheduler.ended().await.code(), fb::ErrorCode::None);
}

#[tokio::test]
async fn the_scheduler_may_write_at_once_behind_its_welcome() {
    let mut cluster = Cluster::start();
    let identity = cluster.identity("pi-1");
    let (addresses, info, config) = ([cluster.address.clone()], hello_info(), LinkConfig::default());
    let clock = ClusterClock::starting_at(NOW);
    let connecting = connect(&addresses, &identity, &info, &clock, &config);
    let eager = async {
        let peer = cluster.welcome().await;
        peer.link.sender.send_many((0..3_000).map(status)).unwrap();
        peer.link.sender.send_bulk(log(1, 300_000)).unwrap();
        peer
    };
    let (connected, _scheduler) = tokio::join!(soon(connecting), eager);
    let mut peer = Peer { link: connected.unwrap().link, clock };
    peer.receive(3_001, |_| ()).await;
}

#[tokio::test]
async fn a_place_where_nobody_answers_costs_a_moment_and_no_more() {
    let mut cluster = Cluster::start();
    let identity = cluster.identity("pi-1");
    let port = cluster.address.rsplit(':').next().unwrap().to_owned();
    // Nobody listens at the first address, nor at the IPv6 address that the name may have.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let addresses = [silent.local_addr().unwrap().to_string(), format!("localhost:{port}")];
    let config = LinkConfig { handshake_timeout: Duration::from_secs(2), ..LinkConfig::default() };
    let (info, clock) = (hello_info(), ClusterClock::from_wall());
    let connecting = connect(&addresses, &identity, &info, &clock, &config);
    let (agent, mut scheduler) = tokio::join!(soon(connecting), cluster.welcome());
    agent.unwrap().link.sender.send(status(1)).unwrap();
    assert_eq!(scheduler.receive(1, index_of).await, [1]);
}
