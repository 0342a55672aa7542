//! The sending half of a link: a bounded queue that never blocks, in front of the link's writer.

use crate::{
    closed::{LinkClosed, close_code, cut_reason},
    limits::LAST_PACKET_TIMEOUT,
    weight::weight,
};
use fleetwire_common::{
    fb::ErrorCode,
    limits::{BODY_BYTES_INLINE_MAX, BODY_BYTES_MAX},
    message::Message,
};
use quinn::{Connection, Endpoint};
use std::{
    collections::VecDeque,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Sends messages on a link. Cheap to clone; the link closes in order when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Sender {
    shared: Arc<Shared>,
    /// Closes the link when the last sender goes.
    _last: Arc<Last>,
}

/// Why a message is not queued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The peer does not take what is sent. The caller ends the link: reconcile repairs.
    #[error("the send queue is full: {messages} messages of about {bytes} bytes wait")]
    Full {
        /// Messages that wait.
        messages: usize,
        /// Their approximate bytes.
        bytes: usize,
    },
    /// No receiver takes a body of this size.
    #[error("a body of about {found} bytes: at most {BODY_BYTES_MAX} can be sent")]
    TooLarge {
        /// Its approximate size.
        found: usize,
    },
    /// The link has ended.
    #[error("the link has ended")]
    Closed,
}

/// What senders, the writer and the receiver of a link share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) connection: Connection,
    /// The connecting side's own endpoint, which must live until the connection's end was sent.
    endpoint: Option<Endpoint>,
    queue: Mutex<Queue>,
    /// Wakes the writer.
    pub(crate) work: Notify,
    /// Wakes who waits for the writer.
    pub(crate) taken: Notify,
    bounds: Bounds,
}

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    pub(crate) bulk_bytes: usize,
}

/// What waits to be sent.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) control: VecDeque<Message>,
    pub(crate) bulk: VecDeque<Message>,
    /// Messages for the control stream, also those that the writer took and did not seal yet.
    messages: usize,
    bytes: usize,
    bulk_bytes: usize,
    /// Set once: send what is queued, then close so.
    pub(crate) closing: Option<(ErrorCode, String)>,
    /// Nothing is taken any more.
    ended: bool,
    /// The connection has ended.
    pub(crate) gone: bool,
}

impl Sender {
    pub(crate) fn new(shared: Arc<Shared>) -> Sender {
        let last = Arc::new(Last { shared: Arc::clone(&shared) });
        Sender { shared, _last: last }
    }

    /// Queues a message: for the control stream, or, if its body is too large for one frame, for a bulk
    /// stream of its own. Never waits. Messages for the control stream arrive in the order in which they
    /// were queued; bulk messages arrive in order among themselves.
    pub fn send(&self, message: Message) -> Result<(), SendError> {
        self.send_many([message])
    }

    /// Queues several at once: one lock, one wake-up, and batches as full as they can be. Stops at the
    /// first that does not fit.
    pub fn send_many(&self, messages: impl IntoIterator<Item = Message>) -> Result<(), SendError> {
        let mut queue = self.shared.queue();
        let result = messages.into_iter().try_for_each(|message| {
            let weight = weight(&message);
            match weight > BODY_BYTES_INLINE_MAX {
                true => queue.push_bulk(message, weight, self.shared.bounds),
                false => queue.push(message, weight, self.shared.bounds),
            }
        });
        drop(queue);
        self.shared.work.notify_one();
        result
    }

    /// Queues a message for a bulk stream whatever its size: what must not delay anything else (logs).
    pub fn send_bulk(&self, message: Message) -> Result<(), SendError> {
        let weight = weight(&message);
        self.shared.queue().push_bulk(message, weight, self.shared.bounds)?;
        self.shared.work.notify_one();
        Ok(())
    }

    /// Approximate bytes that wait for bulk streams: who produces bulk waits while this is high.
    pub fn bulk_bytes_waiting(&self) -> usize {
        self.shared.queue().bulk_bytes
    }

    /// Messages that wait for the control stream.
    pub fn messages_waiting(&self) -> usize {
        self.shared.queue().messages
    }

    /// Waits until the transport has taken what was queued for the control stream, and at most so much waits
    /// for bulk streams, or the link has ended: for who would rather wait than fill the queue.
    pub async fn drained(&self, bulk_bytes_max: usize) {
        loop {
            let mut taken = pin!(self.shared.taken.notified());
            taken.as_mut().enable();
            if self.shared.queue().is_drained(bulk_bytes_max) {
                return;
            }
            taken.await;
        }
    }

    /// Sends what is queued, within the drain timeout, then closes the link and tells the peer why.
    /// Nothing more can be queued. The first reason given counts.
    pub fn close(&self, code: ErrorCode, reason: &str) {
        self.shared.begin_close(code, reason);
    }

    /// Closes the link at once and tells the peer why; what is queued is lost. For peers that do not take
    /// what is sent, or must not get more.
    pub fn abort(&self, code: ErrorCode, reason: &str) {
        self.shared.abort(code, reason);
    }

    /// Waits until the link has ended and, on the connecting side, the peer was told: before a process
    /// exits. Bounded.
    pub async fn closed(&self) -> LinkClosed {
        let error = self.shared.connection.closed().await;
        if let Some(endpoint) = &self.shared.endpoint {
            // The transport lingers to repeat itself; the first copy leaves at once.
            let _ = tokio::time::timeout(LAST_PACKET_TIMEOUT, endpoint.wait_idle()).await;
        }
        self.shared.why(error)
    }

    /// The peer's address, at this moment.
    pub fn remote_address(&self) -> SocketAddr {
        self.shared.connection.remote_address()
    }

    /// Datagrams that were sent on this connection so far: what coalescing gains.
    pub fn datagrams_sent(&self) -> u64 {
        self.shared.connection.stats().udp_tx.datagrams
    }

    /// The round trip as the transport estimates it.
    pub fn round_trip(&self) -> std::time::Duration {
        self.shared.connection.rtt()
    }
}

impl Shared {
    pub(crate) fn new(connection: Connection, endpoint: Option<Endpoint>, bounds: Bounds) -> Shared {
        Shared { connection, endpoint, queue: Mutex::default(), work: Notify::new(), taken: Notify::new(), bounds }
    }

    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue> {
        // A panic elsewhere does not make the queue wrong: every change to it is complete.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin_close(&self, code: ErrorCode, reason: &str) {
        let mut queue = self.queue();
        if queue.closing.is_none() {
            queue.closing = Some((code, cut_reason(reason).to_owned()));
            queue.ended = true;
        }
        drop(queue);
        self.work.notify_one();
    }

    pub(crate) fn abort(&self, code: ErrorCode, reason: &str) {
        let mut queue = self.queue();
        queue.ended = true;
        queue.control.clear();
        queue.bulk.clear();
        if self.connection.close_reason().is_none() {
            queue.closing = Some((code, cut_reason(reason).to_owned()));
        }
        drop(queue);
        self.connection.close(close_code(code), cut_reason(reason).as_bytes());
        self.work.notify_one();
    }

    /// Why the link ended: what we told the peer, if it was us who closed.
    pub(crate) fn why(&self, error: quinn::ConnectionError) -> LinkClosed {
        match (error, self.queue().closing.clone()) {
            (quinn::ConnectionError::LocallyClosed, Some((code, reason))) => LinkClosed::ByUs { code, reason },
            (error, _) => LinkClosed::from_transport(error),
        }
    }

    /// The connection has ended: the writer is told.
    pub(crate) fn on_gone(&self) {
        self.queue().gone = true;
        self.work.notify_one();
    }

    /// Nothing can be queued any more.
    pub(crate) fn end_queue(&self) {
        let mut queue = self.queue();
        queue.ended = true;
        queue.control = VecDeque::new();
        queue.bulk = VecDeque::new();
        drop(queue);
        self.taken.notify_waiters();
    }
}

impl Queue {
    fn push(&mut self, message: Message, weight: usize, bounds: Bounds) -> Result<(), SendError> {
        if self.ended {
            return Err(SendError::Closed);
        }
        if self.messages >= bounds.messages || self.bytes + weight > bounds.bytes {
            return Err(SendError::Full { messages: self.messages, bytes: self.bytes });
        }
        self.messages += 1;
        self.bytes += weight;
        self.control.push_back(message);
        Ok(())
    }

    pub(crate) fn push_bulk(&mut self, message: Message, weight: usize, bounds: Bounds) -> Result<(), SendError> {
        if self.ended {
            return Err(SendError::Closed);
        }
        if weight > BODY_BYTES_MAX {
            return Err(SendError::TooLarge { found: weight });
        }
        if self.bulk_bytes + weight > bounds.bulk_bytes || self.bulk.len() >= bounds.messages {
            return Err(SendError::Full { messages: self.bulk.len(), bytes: self.bulk_bytes });
        }
        self.bulk_bytes += weight;
        self.bulk.push_back(message);
        Ok(())
    }

    fn is_drained(&self, bulk_bytes_max: usize) -> bool {
        self.ended || (self.messages == 0 && self.bulk_bytes <= bulk_bytes_max)
    }

    /// The writer sealed so many messages of so much weight.
    pub(crate) fn sealed(&mut self, messages: usize, bytes: usize) {
        self.messages = self.messages.saturating_sub(messages);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Takes the next message for a bulk stream; it still counts until [`Queue::bulk_sent`].
    pub(crate) fn next_bulk(&mut self) -> Option<Message> {
        self.bulk.pop_front()
    }

    pub(crate) fn bulk_sent(&mut self, bytes: usize) {
        self.bulk_bytes = self.bulk_bytes.saturating_sub(bytes);
    }

    /// Moves a message that the writer took to the bulk queue's front, whatever the bounds: it was
    /// admitted already.
    pub(crate) fn redirect(&mut self, message: Message, weight: usize) {
        self.sealed(1, weight);
        self.bulk_bytes += weight;
        self.bulk.push_back(message);
    }
}

/// The last sender's end is the link's.
#[derive(Debug)]
struct Last {
    shared: Arc<Shared>,
}

impl Drop for Last {
    fn drop(&mut self) {
        self.shared.begin_close(ErrorCode::None, "the session ended");
    }
}
