//! Bare quinn with the link's transport settings and the same bytes: nothing is signed, nothing is looked
//! at. A server on one thread; each client has a socket of its own, as agents have.

use super::{
    load::{Client, Load},
    place::Place,
    process::Control,
};
use bytes::Bytes;
use fleetwire_link::LinkConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream, TransportConfig, VarInt, crypto::rustls as quic};
use std::{
    pin::pin,
    sync::{Arc, Mutex as Shared, atomic::Ordering::Relaxed},
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    sync::Mutex,
    task::yield_now,
    time::{MissedTickBehavior, interval},
};

/// The settings that a link makes of its defaults.
fn transport(bidirectional: u32) -> Arc<TransportConfig> {
    let link = LinkConfig::default();
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(link.idle_timeout.try_into().unwrap()))
        .keep_alive_interval(None)
        .stream_receive_window(VarInt::from_u32(link.stream_window_bytes))
        .receive_window(VarInt::from_u32(link.receive_window_bytes))
        .send_window(link.send_window_bytes)
        .max_concurrent_bidi_streams(VarInt::from_u32(bidirectional))
        .max_concurrent_uni_streams(VarInt::from_u32(2))
        .datagram_receive_buffer_size(None)
        .enable_segmentation_offload(link.segmentation_offload);
    Arc::new(transport)
}

pub async fn serve(place: &Place, control: Arc<Control>) -> String {
    let crypto = quic::QuicServerConfig::try_from(place.server_tls(b"bare")).unwrap();
    let mut settings = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    settings.transport_config(transport(1));
    let endpoint = Endpoint::server(settings, "127.0.0.1:0".parse().unwrap()).unwrap();
    let address = endpoint.local_addr().unwrap().to_string();
    let streams = Arc::new(Shared::new(Vec::new()));
    tokio::spawn(send(Arc::clone(&streams), Arc::clone(&control)));
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let (control, streams) = (Arc::clone(&control), Arc::clone(&streams));
            tokio::spawn(async move {
                let connection = incoming.await.unwrap();
                let (send, recv) = connection.accept_bi().await.unwrap();
                let send = Arc::new(Mutex::new(send));
                streams.lock().unwrap().push(Arc::clone(&send));
                take(recv, send, control, connection).await;
            });
        }
    });
    address
}

/// Counts what comes; answers it where that is asked for.
async fn take(mut recv: RecvStream, send: Arc<Mutex<SendStream>>, control: Arc<Control>, _open: Connection) {
    let mut chunks: [Bytes; 16] = Default::default();
    // The first byte only opens the stream.
    recv.read_exact(&mut [0]).await.unwrap();
    let mut pending = 0;
    while let Ok(Some(count)) = recv.read_chunks(&mut chunks).await {
        pending += chunks[..count].iter().map(Bytes::len).sum::<usize>();
        let bytes = control.bytes.load(Relaxed) as usize;
        let whole = pending / bytes;
        pending %= bytes;
        control.messages.fetch_add(whole as u64, Relaxed);
        if control.echo.load(Relaxed) {
            let mut send = send.lock().await;
            for _ in 0..whole {
                send.write_all(&vec![7; bytes]).await.unwrap();
            }
        }
    }
}

/// Sends what is asked for, every millisecond, to whoever has room for it.
async fn send(streams: Arc<Shared<Vec<Arc<Mutex<SendStream>>>>>, control: Arc<Control>) {
    let mut asked = control.sending.subscribe();
    let (mut next, mut tick) = (0, interval(Duration::from_millis(1)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let sending = *asked.borrow_and_update();
        if sending.connections == 0 {
            asked.changed().await.unwrap();
            continue;
        }
        tick.tick().await;
        let streams: Vec<_> = {
            let streams = streams.lock().unwrap();
            (0..sending.connections).map(|turn| Arc::clone(&streams[(next + turn) % streams.len()])).collect()
        };
        next += sending.connections;
        let bytes = vec![7; sending.bytes * sending.burst];
        let mut sent = 0;
        for stream in streams {
            let mut stream = stream.lock().await;
            let mut write = pin!(stream.write(&bytes));
            if let Poll::Ready(written) = write.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                sent += written.unwrap() / sending.bytes;
            }
        }
        control.messages.fetch_add(sent as u64, Relaxed);
    }
}

/// One connection.
pub struct Bare {
    connection: Connection,
    _endpoint: Endpoint,
    send: Mutex<SendStream>,
    recv: Mutex<RecvStream>,
    echo: usize,
}

impl Bare {
    pub async fn connect(place: &Place, address: &str) -> Bare {
        let crypto = quic::QuicClientConfig::try_from(place.client_tls(b"bare")).unwrap();
        let mut settings = quinn::ClientConfig::new(Arc::new(crypto));
        settings.transport_config(transport(0));
        let endpoint = Endpoint::client("0.0.0.0:0".parse().unwrap()).unwrap();
        let connecting = endpoint.connect_with(settings, address.parse().unwrap(), &place.server_name()).unwrap();
        let connection = connecting.await.unwrap();
        let (mut send, recv) = connection.open_bi().await.unwrap();
        send.write_all(&[1]).await.unwrap();
        Bare { connection, _endpoint: endpoint, send: Mutex::new(send), recv: Mutex::new(recv), echo: 256 }
    }
}

impl Client for Bare {
    async fn send(&self, load: Load) {
        let mut send = self.send.lock().await;
        let bytes = vec![7; load.bytes * load.burst];
        for _ in 0..load.writes {
            send.write_all(&bytes).await.unwrap();
        }
        drop(send);
        yield_now().await;
    }

    async fn echo(&self) {
        let (mut send, mut recv) = (self.send.lock().await, self.recv.lock().await);
        send.write_all(&vec![7; self.echo]).await.unwrap();
        let mut rest = self.echo;
        while rest > 0 {
            rest -= recv.read_chunk(rest, true).await.unwrap().unwrap().bytes.len();
        }
    }

    async fn receive(&self) {
        let mut recv = self.recv.lock().await;
        let mut chunks: [Bytes; 16] = Default::default();
        while recv.read_chunks(&mut chunks).await.unwrap().is_some() {}
    }

    fn datagrams(&self) -> u64 {
        self.connection.stats().udp_tx.datagrams
    }
}
