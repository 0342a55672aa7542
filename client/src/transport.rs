//! Between the client's session and the link: connecting, sealing, opening. The only part of the
//! client that knows what a frame is.

use crate::error::ClientError;
use fleetwire_common::{
    envelope::{Features, Opener, handshake::HelloInfo},
    fb,
    message::{Message, MessageRef},
};
use fleetwire_link::{
    Backoff, ClusterClock, ConnectError, Frame, Identity, LinkConfig, Receiver, SendError, Sender, connect,
};
use std::time::Duration;

/// A link that is opened when it is needed, and again when it was lost.
pub(crate) struct Transport {
    identity: Identity,
    clock: ClusterClock,
    backoff: Backoff,
    process_start_id: [u8; 16],
    link: Option<Open>,
    frames: Vec<Frame>,
}

struct Open {
    sender: Sender,
    receiver: Receiver,
    opener: Opener,
}

/// Why there is no connection, and whether to try again.
pub(crate) struct Failure {
    pub error: ClientError,
    pub retriable: bool,
    /// Before the next try.
    pub wait: Duration,
}

impl Transport {
    pub fn new(identity: Identity) -> Transport {
        let mut process_start_id = [0; 16];
        // Without randomness connecting fails, with an error of its own.
        let _ = getrandom::fill(&mut process_start_id);
        Transport {
            identity,
            clock: ClusterClock::from_wall(),
            backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(5)),
            process_start_id,
            link: None,
            frames: Vec::new(),
        }
    }

    pub fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    /// Opens a session, if there is none.
    pub async fn connect(&mut self) -> Result<(), Failure> {
        let hello = HelloInfo {
            features: Features::ALL,
            boot_id: [0; 16],
            process_start_id: self.process_start_id,
            receipt: None,
            software: SOFTWARE.to_owned(),
        };
        let (addresses, config) = (&self.identity.addresses, LinkConfig::default());
        match connect(addresses, &self.identity, &hello, &self.clock, &config).await {
            Ok(connected) => {
                self.backoff.reset();
                let link = connected.link;
                self.link = Some(Open { sender: link.sender, receiver: link.receiver, opener: link.opener });
                Ok(())
            }
            Err(error) => {
                let retriable = error.is_passing();
                let error = self.fault(&error);
                Err(Failure { error, retriable, wait: self.backoff.delay() })
            }
        }
    }

    fn fault(&self, error: &ConnectError) -> ClientError {
        ClientError::Unreachable { addresses: self.identity.addresses.clone(), error: error.to_string() }
    }

    /// Queues a message. A link that takes no more is given up, and opened again.
    pub fn send(&mut self, message: Message) -> Result<(), ClientError> {
        let Some(link) = &self.link else { return Ok(()) };
        match link.sender.send(message) {
            Ok(()) => Ok(()),
            Err(SendError::TooLarge { .. }) => Err(ClientError::TooLarge),
            // Whatever was asked is asked again in the next session.
            Err(SendError::Full { .. } | SendError::Closed) => {
                self.close();
                Ok(())
            }
        }
    }

    /// The next answers with their request numbers; `None` when the session is lost. Nothing is lost when
    /// the future is dropped.
    pub async fn receive(&mut self) -> Option<Vec<(u64, fb::SchedulerMessageT)>> {
        let link = self.link.as_mut()?;
        self.frames.clear();
        if link.receiver.recv_many(&mut self.frames).await.is_err() {
            self.link = None;
            return None;
        }
        let mut answers = Vec::new();
        for frame in &self.frames {
            match link.opener.open(&frame.bytes, frame.stream, frame.arrived_ms, frame.tolerance_ms()) {
                Ok(opened) => answers.extend(opened.messages().filter_map(|(_, message)| answer(message))),
                Err(error) if error.is_fatal() => {
                    tracing::debug!("the scheduler's frame was refused: {error}");
                    link.sender.close(error.code(), "a frame was refused");
                    self.link = None;
                    break;
                }
                Err(error) => tracing::debug!("a message of the scheduler was refused: {error}"),
            }
        }
        if answers.is_empty() && self.link.is_none() { None } else { Some(answers) }
    }

    /// Ends the session in order.
    pub async fn finish(mut self) {
        if let Some(link) = self.link.take() {
            link.sender.close(fb::ErrorCode::None, "done");
            link.sender.closed().await;
        }
    }

    /// Gives the session up.
    pub fn close(&mut self) {
        self.link = None;
    }
}

/// An answer that is for a request of ours.
fn answer(message: MessageRef<'_>) -> Option<(u64, fb::SchedulerMessageT)> {
    match message {
        MessageRef::JobSubmitted(it) => {
            Some((it.request(), fb::SchedulerMessageT::JobSubmitted(Box::new(it.unpack()))))
        }
        MessageRef::TokenCreated(it) => {
            Some((it.request(), fb::SchedulerMessageT::TokenCreated(Box::new(it.unpack()))))
        }
        MessageRef::Page(it) => Some((it.request(), fb::SchedulerMessageT::Page(Box::new(it.unpack())))),
        MessageRef::LogChunk(it) => Some((it.request(), fb::SchedulerMessageT::LogChunk(Box::new(it.unpack())))),
        MessageRef::Ack(it) => Some((it.request(), fb::SchedulerMessageT::Ack(Box::new(it.unpack())))),
        MessageRef::Nack(it) => Some((it.request(), fb::SchedulerMessageT::Nack(Box::new(it.unpack())))),
        _ => None,
    }
}

const SOFTWARE: &str = concat!("fleetwire-client ", env!("CARGO_PKG_VERSION"));
