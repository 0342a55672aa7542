//! Peers that do not keep to the protocol: every wait ends, every bound holds, nothing panics, and the
//! listener goes on.

use super::{
    trust::{dial_from, dial_raw, try_dial_raw},
    *,
};
use crate::{
    connect::{Dialed, dial},
    frames::FrameError,
    tls::Expected,
};
use bytes::Bytes;
use fleetwire_common::{
    envelope::handshake::{Greeting, Session},
    limits::FRAME_BYTES_MAX,
};

fn impatient() -> LinkConfig {
    LinkConfig { handshake_timeout: Duration::from_millis(400), ..LinkConfig::default() }
}

/// A principal's bare connection: TLS is fine, nothing was said yet.
async fn dial_as(cluster: &Cluster, identity: &Identity) -> Dialed {
    let expected = Expected {
        cluster: "test-cluster",
        authority_sha256: cluster.authority.sha256(),
        known_time: NOW,
        identity: Some(identity),
    };
    soon(dial(&cluster.address, &expected, &LinkConfig::default())).await.unwrap()
}

/// A genuine session whose agent's side is driven by hand.
async fn by_hand(cluster: &mut Cluster) -> (Dialed, quinn::SendStream, quinn::RecvStream, Session, Peer) {
    let identity = cluster.identity("pi-1");
    let dialed = dial_as(cluster, &identity).await;
    let (mut send, mut recv) = dialed.connection.open_bi().await.unwrap();
    let mut frame = Vec::new();
    let greeting = Greeting::hello(&identity.enrolment_key, [6; 16], &hello_info(), 0, &mut frame);
    send.write_all(&frame).await.unwrap();
    let peer = cluster.welcome().await;
    let welcome = soon(recv.read_chunk(4096, true)).await.unwrap().unwrap();
    let (session, _) = greeting.on_welcome(&welcome.bytes).unwrap();
    (dialed, send, recv, session, peer)
}

async fn told(connection: &quinn::Connection) -> fb::ErrorCode {
    LinkClosed::from_transport(soon(connection.closed()).await).code()
}

#[tokio::test]
async fn whoever_never_says_hello_is_closed_in_time() {
    let mut cluster = Cluster::with(impatient());
    let identity = cluster.identity("pi-1");
    // One opens no stream, one opens it half, one stops within its frame, one sends one byte at a time.
    let silent = dial_as(&cluster, &identity).await;
    let half = dial_as(&cluster, &identity).await;
    let (mut half_send, _half_recv) = half.connection.open_bi().await.unwrap();
    half_send.write_all(&100u32.to_le_bytes()).await.unwrap();
    let joining = dial_raw(&cluster, JOIN_ALPN).await;
    for connection in [&silent.connection, &half.connection, &joining.connection] {
        assert_eq!(told(connection).await, fb::ErrorCode::MessageTimeout);
    }
    for _ in 0..3 {
        let refused = cluster.refused().await;
        assert!(matches!(refused, AcceptError::TimedOut { phase: "first frame" }), "{refused}");
    }
    cluster.session("pi-2").await;
}

// §envelope-6
#[tokio::test]
async fn first_frames_that_are_none_are_refused_with_their_code() {
    let mut cluster = Cluster::start();
    let identity = cluster.identity("pi-1");
    let garbage: Vec<u8> = (0..=255).cycle().take(200).collect();
    let framed = [&100u32.to_le_bytes()[..], &garbage[..100]].concat();
    let cases: [(Vec<u8>, fb::ErrorCode); 5] = [
        (garbage.clone(), fb::ErrorCode::TooLarge),
        (u32::MAX.to_le_bytes().to_vec(), fb::ErrorCode::TooLarge),
        (5_000u32.to_le_bytes().to_vec(), fb::ErrorCode::TooLarge),
        (0u32.to_le_bytes().to_vec(), fb::ErrorCode::MessageFormat),
        (framed, fb::ErrorCode::Authorization),
    ];
    for (bytes, code) in cases {
        let dialed = dial_as(&cluster, &identity).await;
        let (mut send, _recv) = dialed.connection.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        assert_eq!(told(&dialed.connection).await, code, "{:?}", &bytes[..4]);
        assert_eq!(cluster.refused().await.code(), code);
    }
    cluster.session("pi-2").await;
}

// §session-4
#[tokio::test]
async fn whoever_goes_on_before_the_welcome_is_refused() {
    let mut cluster = Cluster::start();
    let identity = cluster.identity("pi-1");
    let dialed = dial_as(&cluster, &identity).await;
    let (mut send, _recv) = dialed.connection.open_bi().await.unwrap();
    let mut frame = Vec::new();
    let _greeting = Greeting::hello(&identity.enrolment_key, [6; 16], &hello_info(), 0, &mut frame);
    frame.extend_from_slice(&[0; 50]);
    send.write_all(&frame).await.unwrap();
    assert_eq!(told(&dialed.connection).await, fb::ErrorCode::WrongState);
    assert!(matches!(cluster.refused().await, AcceptError::TooMuch { found: 50 }));
}

// §envelope-5
#[tokio::test]
async fn a_frame_beyond_the_cap_ends_the_session_before_it_is_read() {
    let mut cluster = Cluster::start();
    let (dialed, mut send, _recv, _session, mut peer) = by_hand(&mut cluster).await;
    send.write_all(&(FRAME_BYTES_MAX as u32).to_le_bytes()).await.unwrap();
    let found = FRAME_BYTES_MAX as u64 + 4;
    assert_eq!(peer.ended().await, LinkClosed::Frame(FrameError::TooLong { found, max: FRAME_BYTES_MAX }));
    assert_eq!(told(&dialed.connection).await, fb::ErrorCode::TooLarge);
    assert_eq!(peer.link.sender.send(status(1)), Err(SendError::Closed));
}

#[tokio::test]
async fn a_stream_that_ends_within_a_frame_ends_the_session() {
    let mut cluster = Cluster::start();
    let (_dialed, mut send, _recv, mut session, mut peer) = by_hand(&mut cluster).await;
    let mut frame = Vec::new();
    session.sealer.seal(peer.clock.now().as_ms(), &[status(1), status(2)], &mut frame);
    send.write_all(&frame).await.unwrap();
    send.write_all(&frame[..30]).await.unwrap();
    send.finish().unwrap();
    assert_eq!(peer.receive(2, index_of).await, [1, 2]);
    assert_eq!(peer.ended().await, LinkClosed::Frame(FrameError::Truncated { found: 30 }));
}

#[tokio::test]
async fn a_reset_stream_ends_the_session() {
    let mut cluster = Cluster::start();
    let (_dialed, mut send, _recv, _session, mut peer) = by_hand(&mut cluster).await;
    send.reset(quinn::VarInt::from_u32(3)).unwrap();
    assert_eq!(peer.ended().await, LinkClosed::Frame(FrameError::StreamReset { stream: 0 }));
}

#[tokio::test]
async fn a_control_stream_that_is_finished_and_never_closed_ends_in_time() {
    let mut cluster = Cluster::start();
    let (_dialed, mut send, _recv, _session, mut peer) = by_hand(&mut cluster).await;
    send.finish().unwrap();
    let ended = peer.ended().await;
    assert_eq!(ended.code(), fb::ErrorCode::MessageTimeout, "{ended}");
}

#[tokio::test]
async fn garbage_frames_are_delivered_whole_and_refused_by_the_opener_alone() {
    let mut cluster = Cluster::start();
    let (_dialed, mut send, _recv, mut session, mut peer) = by_hand(&mut cluster).await;
    let mut genuine = Vec::new();
    session.sealer.seal(peer.clock.now().as_ms(), &[status(4)], &mut genuine);
    let mut flipped = genuine.clone();
    flipped[20] ^= 1;
    send.write_all(&[flipped, genuine].concat()).await.unwrap();
    let mut frames = Vec::new();
    while frames.len() < 2 {
        soon(peer.link.receiver.recv_many(&mut frames)).await.unwrap();
    }
    let mut open = |frame: &Frame| {
        let tolerance = frame.tolerance_ms();
        peer.link
            .opener
            .open(&frame.bytes, frame.stream, frame.arrived_ms, tolerance)
            .map(|_| ())
            .map_err(|error| error.code())
    };
    assert_eq!(open(&frames[0]), Err(fb::ErrorCode::Authorization));
    assert_eq!(open(&frames[1]), Ok(()));
}

#[tokio::test]
async fn more_streams_than_may_be_open_wait_at_the_sender() {
    let mut cluster = Cluster::start();
    let (dialed, _send, _recv, _session, mut peer) = by_hand(&mut cluster).await;
    let receiving = async { peer.ended().await };
    let flooding = async {
        let mut streams = Vec::new();
        for _ in 0..2 {
            let mut stream = dialed.connection.open_uni().await.unwrap();
            stream.write_all(&[0xff; 2]).await.unwrap();
            streams.push(stream);
        }
        // Neither a third, nor a second bidirectional one.
        let third = tokio::time::timeout(Duration::from_millis(100), dialed.connection.open_uni()).await;
        let second = tokio::time::timeout(Duration::from_millis(100), dialed.connection.open_bi()).await;
        assert!(third.is_err() && second.is_err());
        streams[0].reset(quinn::VarInt::from_u32(1)).unwrap();
        streams
    };
    let (ended, _streams) = tokio::join!(receiving, flooding);
    assert_eq!(ended, LinkClosed::Frame(FrameError::StreamReset { stream: 1 }));
}

// §seal-4
#[tokio::test]
async fn who_does_not_read_fills_a_bounded_queue_and_no_more() {
    let config = LinkConfig { queue_messages_max: 5_000, ..LinkConfig::default() };
    let mut cluster = Cluster::start();
    let (agent, scheduler) = cluster.session_with("pi-1", &config).await;
    // The scheduler's side is never asked for frames: its windows fill, then the queue.
    let mut sent = 0u32;
    let error = loop {
        match agent.link.sender.send(status(sent)) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        tokio::task::yield_now().await;
        assert!(sent < 1_000_000, "the queue never fills");
    };
    assert!(matches!(error, SendError::Full { messages: 5_000, .. }), "{error}");
    agent.link.sender.abort(fb::ErrorCode::Busy, "the send queue is full");
    let mut scheduler = scheduler;
    let ended = scheduler.ended().await;
    assert_eq!(ended, LinkClosed::ByPeer { code: fb::ErrorCode::Busy, reason: "the send queue is full".into() });
    assert_eq!(agent.link.sender.send(status(0)), Err(SendError::Closed));
    let large = log(1, 17 << 20);
    let (agent, _scheduler) = cluster.session("pi-2").await;
    assert!(matches!(agent.link.sender.send(large), Err(SendError::TooLarge { .. })));
    let full = (0..10).find_map(|n| agent.link.sender.send(log(n, 15 << 20)).err());
    assert!(matches!(full, Some(SendError::Full { .. })));
}

#[tokio::test]
async fn who_does_not_read_cannot_keep_a_link_from_closing() {
    let config = LinkConfig { drain_timeout: Duration::from_millis(300), ..LinkConfig::default() };
    let mut cluster = Cluster::start();
    let (agent, _scheduler) = cluster.session_with("pi-1", &config).await;
    agent.link.sender.send_many((0..20_000).map(status)).unwrap();
    agent.link.sender.send(log(1, 1 << 20)).unwrap();
    agent.link.sender.close(fb::ErrorCode::Busy, "enough");
    let ended = soon(agent.link.sender.closed()).await;
    assert_eq!(ended, LinkClosed::ByUs { code: fb::ErrorCode::Busy, reason: "enough".into() });
}

// §version-1
#[tokio::test]
async fn an_unknown_protocol_version_is_refused_with_its_alert() {
    let mut cluster = Cluster::start();
    let Err(error) = try_dial_raw(&cluster, b"fleetwire/9").await else { panic!("it was taken") };
    const NO_APPLICATION_PROTOCOL: u8 = 120;
    let closed = LinkClosed::from_transport(error);
    assert!(matches!(closed, LinkClosed::Tls { alert: NO_APPLICATION_PROTOCOL, .. }), "{closed}");
    cluster.refused().await;
}

// §fresh-2
#[tokio::test]
async fn a_stale_frame_is_noticed() {
    let mut cluster = Cluster::start();
    let (_dialed, mut send, _recv, mut session, mut peer) = by_hand(&mut cluster).await;
    let now = peer.clock.now().as_ms();
    let mut old = Vec::new();
    session.sealer.seal(now - 60_000, &[status(1)], &mut old);
    send.write_all(&old).await.unwrap();
    let mut frames = Vec::new();
    soon(peer.link.receiver.recv_many(&mut frames)).await.unwrap();
    let frame = &frames[0];
    let error = peer.link.opener.open(&frame.bytes, 0, frame.arrived_ms, frame.tolerance_ms()).unwrap_err();
    assert_eq!(error.code(), fb::ErrorCode::Stale);
}

#[tokio::test]
async fn time_in_which_we_did_not_read_is_not_held_against_the_peer() {
    let mut cluster = Cluster::start();
    let (_dialed, mut send, _recv, mut session, mut peer) = by_hand(&mut cluster).await;
    let mut frame = Vec::new();
    session.sealer.seal(peer.clock.now().as_ms(), &[status(2)], &mut frame);
    send.write_all(&frame).await.unwrap();
    send.finish().unwrap();
    // The transport has it, and we are busy with something else for ten seconds.
    soon(send.stopped()).await.unwrap();
    peer.clock.set_offset_us(peer.clock.offset_us() + 10_000_000);
    assert_eq!(peer.receive(1, index_of).await, [2]);
}

#[tokio::test]
async fn a_crowd_of_handshakes_is_bounded_and_everybody_gets_a_turn() {
    let mut cluster = Cluster::with(LinkConfig { handshakes_max: 4, ..LinkConfig::default() });
    let (addresses, info, config) = ([cluster.address.clone()], hello_info(), LinkConfig::default());
    let identities: Vec<_> = (0..24).map(|n| cluster.identity(&format!("pi-{n}"))).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for identity in identities {
        let (addresses, info, config) = (addresses.clone(), info.clone(), config.clone());
        tasks.spawn(async move {
            let clock = ClusterClock::from_wall();
            connect(&addresses, &identity, &info, &clock, &config).await.map(|connected| connected.link)
        });
    }
    let mut links = Vec::new();
    for _ in 0..24 {
        links.push(cluster.welcome().await);
    }
    while let Some(connected) = soon(tasks.join_next()).await {
        connected.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_network_that_holds_its_handshakes_open_keeps_nobody_else_out() {
    let mut cluster = Cluster::with(LinkConfig { handshakes_max: 8, ..LinkConfig::default() });
    // Thirty strangers from one address go through TLS, as far as they are let, and say nothing.
    let mut strangers = tokio::task::JoinSet::new();
    for _ in 0..30 {
        strangers.spawn(dial_from("127.0.0.2:0", cluster.address.clone(), cluster.authority.sha256()));
    }
    let mut held = Vec::new();
    while held.len() < 4 {
        held.push(soon(strangers.join_next()).await);
    }
    let begun = std::time::Instant::now();
    let (agent, mut scheduler) = cluster.session("pi-1").await;
    agent.link.sender.send(status(1)).unwrap();
    assert_eq!(scheduler.receive(1, index_of).await, [1]);
    assert!(begun.elapsed() < Duration::from_secs(4), "it had to wait for a stranger's timeout");
}

#[tokio::test]
async fn a_full_listener_refuses_and_says_so() {
    let mut cluster = Cluster::with(LinkConfig { connections_max: 1, ..LinkConfig::default() });
    let _held = cluster.session("pi-1").await;
    let identity = cluster.identity("pi-2");
    let clock = ClusterClock::from_wall();
    let addresses = [cluster.address.clone()];
    soon(connect(&addresses, &identity, &hello_info(), &clock, &impatient())).await.unwrap_err();
    assert!(matches!(cluster.refused().await, AcceptError::Full { connections: 1 }));
}

#[tokio::test]
async fn datagrams_of_noise_disturb_nobody() {
    let mut cluster = Cluster::start();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut random = 1u64;
    for length in (0..400).map(|n| n * 3) {
        let noise: Bytes = std::iter::repeat_with(|| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 56) as u8
        })
        .take(length)
        .collect();
        socket.send_to(&noise, &cluster.address).unwrap();
    }
    let (agent, mut scheduler) = cluster.session("pi-1").await;
    agent.link.sender.send(status(1)).unwrap();
    assert_eq!(scheduler.receive(1, index_of).await, [1]);
}

// §transport-5
#[tokio::test]
async fn a_peer_that_is_silent_is_given_up_after_the_idle_timeout() {
    let mut cluster = Cluster::with(LinkConfig { idle_timeout: Duration::from_secs(1), ..LinkConfig::default() });
    let (_dialed, _send, _recv, _session, mut peer) = by_hand(&mut cluster).await;
    assert_eq!(peer.ended().await, LinkClosed::Silent);
}
