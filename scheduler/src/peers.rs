//! The sessions that are open: their openers and senders, and what is said of those that misbehave.
//!
//! Invariant: a frame is opened, and its messages are decided, before the next one is looked at; a
//! security event is logged once per session, however often it repeats.

use fleetwire_common::{
    envelope::{OpenError, Opener},
    fb,
    ids::{Principal, SessionId},
    message::Message,
    time::Time,
};
use fleetwire_link::{Frame, SendError, Sender};
use fleetwire_scheduler_core::{Effects, Event, Origin, Scheduler};
use std::collections::BTreeMap;

/// All sessions.
#[derive(Default)]
pub(crate) struct Peers {
    peers: BTreeMap<SessionId, Peer>,
    /// Those that have something to be sent.
    touched: Vec<SessionId>,
}

struct Peer {
    principal: Principal,
    sender: Sender,
    opener: Box<Opener>,
    /// What is to be sent, in order, until [`Peers::flush`]: one lock and one wake-up for all of it.
    outgoing: Vec<Message>,
    /// Whether a refused frame of it was logged.
    logged: bool,
    /// Closed from our side: what still arrives is not looked at.
    closed: bool,
}

impl Peers {
    pub fn add(&mut self, session: SessionId, principal: Principal, sender: Sender, opener: Box<Opener>) {
        self.peers
            .insert(session, Peer { principal, sender, opener, outgoing: Vec::new(), logged: false, closed: false });
    }

    pub fn remove(&mut self, session: SessionId) -> Option<Principal> {
        self.peers.remove(&session).map(|peer| peer.principal)
    }

    /// Opens frames and lets the core decide on each message.
    pub fn on_frames(
        &mut self,
        session: SessionId,
        frames: &[Frame],
        now: Time,
        core: &mut Scheduler,
        effects: &mut Effects,
    ) {
        let Some(peer) = self.peers.get_mut(&session).filter(|peer| !peer.closed) else { return };
        for frame in frames {
            let opened = match peer.opener.open(&frame.bytes, frame.stream, frame.arrived_ms, frame.tolerance_ms()) {
                Ok(opened) => opened,
                Err(error) => {
                    peer.on_refused(&error, Origin { stream: frame.stream, ..Origin::default() });
                    if error.is_fatal() {
                        return;
                    }
                    continue;
                }
            };
            let from = |item| Origin {
                stream: opened.stream,
                sequence: opened.sequence,
                item,
                timestamp_ms: opened.timestamp_ms,
            };
            for (item, message) in opened.messages() {
                core.handle(now, Event::Received { session, from: from(item), message }, effects);
            }
            let refused: Vec<_> = opened.refused().iter().map(|(item, error)| (from(*item), error.clone())).collect();
            for (from, error) in refused {
                peer.on_refused(&error, from);
            }
        }
    }

    /// Sends, with the next flush; nothing if the session is gone.
    pub fn send(&mut self, session: SessionId, message: Message) {
        let Some(peer) = self.peers.get_mut(&session).filter(|peer| !peer.closed) else { return };
        if peer.outgoing.is_empty() {
            self.touched.push(session);
        }
        peer.outgoing.push(message);
    }

    /// Hands over what is to be sent.
    pub fn flush(&mut self) {
        for session in self.touched.drain(..) {
            if let Some(peer) = self.peers.get_mut(&session) {
                peer.flush();
            }
        }
    }

    /// Ends a session.
    pub fn close(&mut self, session: SessionId, code: fb::ErrorCode, reason: &str) {
        if let Some(peer) = self.peers.get_mut(&session) {
            tracing::info!(principal = %peer.principal, session = session.0, "closing: {reason} ({code:?})");
            peer.flush();
            peer.close(code, reason);
        }
    }

    /// Ends them all: the scheduler stops.
    pub fn close_all(&mut self) {
        for peer in self.peers.values_mut() {
            peer.flush();
            peer.close(fb::ErrorCode::ShuttingDown, "the scheduler stops");
        }
    }
}

impl Peer {
    /// Answers a frame or batch item that was refused, and ends the session where it cannot go on.
    fn on_refused(&mut self, error: &OpenError, from: Origin) {
        if !self.logged {
            self.logged = true;
            tracing::warn!(principal = %self.principal, stream = from.stream, "refused what it sent: {error}");
        }
        // A link whose bytes are not authentic gets no answer under its keys.
        if error.code() != fb::ErrorCode::Authorization {
            let nack = fb::NackT {
                code: error.code(),
                message: Some(error.to_string()),
                stream: from.stream,
                sequence: from.sequence,
                item: from.item,
                retriable: error.code() == fb::ErrorCode::Stale,
                ..Default::default()
            };
            // If it cannot be sent, the link is gone already.
            let _ = self.sender.send(Message::Rare(fb::SchedulerMessageT::Nack(Box::new(nack))));
        }
        if error.is_fatal() {
            self.close(error.code(), "a frame was refused");
        }
    }

    /// A queue that is full ends the session: reconcile repairs.
    fn flush(&mut self) {
        if let Err(error) = self.sender.send_many(self.outgoing.drain(..))
            && !self.closed
        {
            if error != SendError::Closed {
                tracing::warn!(principal = %self.principal, "{error}: the session is closed");
            }
            self.closed = true;
            self.sender.abort(fb::ErrorCode::Busy, "too much waits to be sent");
        }
    }

    fn close(&mut self, code: fb::ErrorCode, reason: &str) {
        self.closed = true;
        self.sender.close(code, reason);
    }
}
