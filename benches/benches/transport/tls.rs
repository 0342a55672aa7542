//! The same envelopes over TCP and TLS: one thread, one socket a connection, no streams, no deadlines.

use super::{
    load::{Client, Load},
    place::{self, Place},
    process::Control,
};
use bytes::BytesMut;
use fleetwire_common::{
    envelope::{Features, Opener, Sealer},
    limits::FRAME_BYTES_CODEC_MAX,
    message::Message,
};
use fleetwire_link::{Arrival, FrameReader};
use rustls::pki_types::ServerName;
use std::{
    hint::black_box,
    sync::{Arc, atomic::Ordering::Relaxed},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split},
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::yield_now,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

type Write = WriteHalf<TlsStream<TcpStream>>;

/// Reads frames and opens them.
struct Incoming {
    read: ReadHalf<TlsStream<TcpStream>>,
    room: BytesMut,
    frames: FrameReader,
    opener: Opener,
}

pub async fn serve(place: &Place, control: Arc<Control>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let acceptor = TlsAcceptor::from(Arc::new(place.server_tls(b"tls")));
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            let (acceptor, control) = (acceptor.clone(), Arc::clone(&control));
            tokio::spawn(async move {
                let stream = acceptor.accept(socket).await.unwrap();
                let (mut incoming, mut write, mut sealer) = both(TlsStream::Server(stream));
                loop {
                    let count = incoming.next().await;
                    control.messages.fetch_add(count as u64, Relaxed);
                    if control.echo.load(Relaxed) {
                        for _ in 0..count {
                            write.write_all(&seal(&mut sealer, &[place::message(256)])).await.unwrap();
                        }
                    }
                }
            });
        }
    });
    address
}

fn both(stream: TlsStream<TcpStream>) -> (Incoming, Write, Sealer) {
    let (read, write) = split(stream);
    let (sealer, opener) = place::codec(Features::ALL);
    let frames = FrameReader::new(0, FRAME_BYTES_CODEC_MAX);
    let opener = opener.with_frame_bytes_max(FRAME_BYTES_CODEC_MAX);
    let sealer = sealer.with_frame_bytes_max(FRAME_BYTES_CODEC_MAX);
    (Incoming { read, room: BytesMut::new(), frames, opener }, write, sealer)
}

/// As few frames as it takes.
fn seal(sealer: &mut Sealer, mut messages: &[Message]) -> Vec<u8> {
    let mut out = Vec::new();
    while !messages.is_empty() {
        let taken = sealer.seal(place::now().as_ms(), messages, &mut out);
        messages = &messages[taken..];
    }
    out
}

impl Incoming {
    /// Waits for bytes; returns how many messages they completed.
    async fn next(&mut self) -> usize {
        self.room.reserve(16 << 10);
        if self.read.read_buf(&mut self.room).await.unwrap_or(0) == 0 {
            std::future::pending::<()>().await;
        }
        let at_ms = place::now().as_ms();
        self.frames.push(self.room.split().freeze(), Arrival { at_ms, unread_ms: 0 });
        let mut count = 0;
        while let Some(frame) = self.frames.next_frame().unwrap() {
            let opened = self.opener.open(&frame.bytes, 0, frame.arrived_ms, frame.tolerance_ms()).unwrap();
            count += opened.messages().map(black_box).count();
        }
        count
    }
}

/// One connection.
pub struct Tls {
    write: Mutex<(Write, Sealer)>,
    incoming: Mutex<Incoming>,
}

impl Tls {
    pub async fn connect(place: &Place, address: &str) -> Tls {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let name = ServerName::try_from(place.server_name()).unwrap();
        let connector = TlsConnector::from(Arc::new(place.client_tls(b"tls")));
        let stream = connector.connect(name, socket).await.unwrap();
        let (incoming, write, sealer) = both(TlsStream::Client(stream));
        Tls { write: Mutex::new((write, sealer)), incoming: Mutex::new(incoming) }
    }
}

impl Client for Tls {
    async fn send(&self, load: Load) {
        let message = if load.heartbeat { place::heartbeat() } else { place::message(load.bytes) };
        let mut both = self.write.lock().await;
        let (write, sealer) = &mut *both;
        let burst = vec![message; load.burst * load.writes];
        // Not to be dropped halfway: the sequence has gone on.
        write.write_all(&seal(sealer, &burst)).await.unwrap();
        drop(both);
        yield_now().await;
    }

    async fn echo(&self) {
        let mut both = self.write.lock().await;
        let (write, sealer) = &mut *both;
        write.write_all(&seal(sealer, &[place::message(256)])).await.unwrap();
        let mut incoming = self.incoming.lock().await;
        while incoming.next().await == 0 {}
    }

    async fn receive(&self) {
        std::future::pending().await
    }
}
