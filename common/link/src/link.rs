//! A link: one peer's connection with an agreed session, in its three parts.

use crate::{
    clock::ClusterClock,
    config::LinkConfig,
    frames::FrameReader,
    receiver::Receiver,
    sender::{Bounds, Sender, Shared},
    writer::Writer,
};
use fleetwire_common::{
    envelope::{Opener, handshake::Session},
    limits::FRAME_BYTES_MAX,
};
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use std::sync::Arc;
use tokio::runtime::Handle;

/// One peer's connection with an agreed session. Its parts may live on different threads.
#[derive(Debug)]
pub struct Link {
    /// Sends messages.
    pub sender: Sender,
    /// Receives frames.
    pub receiver: Receiver,
    /// Opens them: `opener.open(&frame.bytes, frame.stream, frame.arrived_ms, frame.tolerance_ms())`.
    pub opener: Opener,
}

/// What becomes a link.
pub(crate) struct Parts {
    pub(crate) connection: Connection,
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    pub(crate) reader: FrameReader,
    pub(crate) clock: ClusterClock,
    pub(crate) runtime: Handle,
}

impl Parts {
    /// Starts the link. `first` is written before everything else: the `Welcome`, or nothing.
    pub(crate) fn start(self, session: Session, first: Vec<u8>, config: &LinkConfig) -> Link {
        let Parts { connection, endpoint, send, recv, mut reader, clock, runtime } = self;
        reader.set_max(FRAME_BYTES_MAX);
        let bounds = Bounds {
            messages: config.queue_messages_max,
            bytes: config.queue_bytes_max,
            bulk_bytes: config.bulk_queue_bytes_max,
        };
        let shared = Arc::new(Shared::new(connection, endpoint, bounds));
        let Session { sealer, opener } = session;
        let writer = Writer::new(
            Arc::clone(&shared),
            send,
            sealer,
            clock.clone(),
            config.drain_timeout,
            config.send_window_bytes,
        );
        runtime.spawn(Box::new(writer).run(first));
        let receiver = Receiver::new(Arc::clone(&shared), recv, reader, clock, runtime);
        Link { sender: Sender::new(shared), receiver, opener }
    }
}
