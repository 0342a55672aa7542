//! The sessions that are open: their openers and senders, and what is said of those that misbehave.
//!
//! Invariant: a frame is opened, and its messages are decided, before the next one is looked at; a
//! security event is logged once per session, however often it repeats; a session in which much is
//! refused, or that does not take what it is sent, ends.

use crate::{
    decider::Decider,
    limits::{REFUSED_MAX, REFUSED_WITHIN},
    refusals::Refusals,
};
use fleetwire_common::{
    envelope::{OpenError, Opener},
    fb,
    ids::{Principal, SessionId},
    message::Message,
    time::Time,
};
use fleetwire_link::{Frame, SendError, Sender};
use fleetwire_scheduler_core::{Event, Origin};
use std::{collections::BTreeMap, sync::Arc};

/// All sessions.
pub(crate) struct Peers {
    refusals: Arc<Refusals>,
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
    refusals: Arc<Refusals>,
    /// Whether a refused frame of it was logged.
    logged: bool,
    /// What was refused since then: how often.
    refused: u32,
    refused_since: Time,
    /// Closed from our side: what still arrives is not looked at.
    closed: bool,
}

impl Peers {
    pub fn new(refusals: Arc<Refusals>) -> Peers {
        Peers { refusals, peers: BTreeMap::new(), touched: Vec::new() }
    }

    pub fn add(&mut self, session: SessionId, principal: Principal, sender: Sender, opener: Box<Opener>) {
        let peer = Peer {
            principal,
            sender,
            opener,
            outgoing: Vec::new(),
            refusals: Arc::clone(&self.refusals),
            logged: false,
            refused: 0,
            refused_since: Time(0),
            closed: false,
        };
        self.peers.insert(session, peer);
    }

    pub fn remove(&mut self, session: SessionId) -> Option<Principal> {
        self.peers.remove(&session).map(|peer| peer.principal)
    }

    /// How many sessions there are.
    pub fn count(&self) -> usize {
        self.peers.len()
    }

    /// Opens a frame and lets the core decide on each message.
    pub fn on_frame(&mut self, session: SessionId, frame: &Frame, now: Time, decider: &mut Decider) {
        let Some(peer) = self.peers.get_mut(&session).filter(|peer| !peer.closed) else { return };
        let opened = match peer.opener.open(&frame.bytes, frame.stream, frame.arrived_ms, frame.tolerance_ms()) {
            Ok(opened) => opened,
            Err(error) => {
                peer.on_refused(&error, Origin { stream: frame.stream, ..Origin::default() }, now);
                return;
            }
        };
        let from =
            |item| Origin { stream: opened.stream, sequence: opened.sequence, item, timestamp_ms: opened.timestamp_ms };
        for (item, message) in opened.messages() {
            decider.handle(now, Event::Received { session, from: from(item), message });
        }
        let refused: Vec<_> = opened.refused().iter().map(|(item, error)| (from(*item), error.clone())).collect();
        for (from, error) in refused {
            peer.on_refused(&error, from, now);
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
    // §open-14
    /// Answers a frame or batch item that was refused, and ends the session where it cannot go on.
    fn on_refused(&mut self, error: &OpenError, from: Origin, now: Time) {
        if self.closed {
            return;
        }
        self.refusals.count(error);
        if !self.logged {
            self.logged = true;
            tracing::warn!(principal = %self.principal, stream = from.stream, "refused what it sent: {error}");
        }
        if now.since(self.refused_since) >= REFUSED_WITHIN {
            (self.refused, self.refused_since) = (0, now);
        }
        self.refused += 1;
        if self.refused > REFUSED_MAX {
            let within_s = REFUSED_WITHIN.as_secs();
            tracing::warn!(principal = %self.principal, "closing: more than {REFUSED_MAX} refused in {within_s} s");
            self.refusals.count_session();
            let reason = format!("more than {REFUSED_MAX} frames or batch items were refused within {within_s} s");
            self.close(fb::ErrorCode::RateLimited, &reason);
            return;
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
            let sent = self.sender.send(Message::Rare(fb::SchedulerMessageT::Nack(Box::new(nack))));
            self.on_sent(sent);
        }
        // §fresh-2
        if error.is_fatal() && !self.closed {
            self.refusals.count_session();
            self.close(error.code(), "a frame was refused");
        }
    }

    fn flush(&mut self) {
        let sent = self.sender.send_many(self.outgoing.drain(..));
        self.on_sent(sent);
    }

    /// A queue that is full ends the session: reconcile repairs.
    fn on_sent(&mut self, sent: Result<(), SendError>) {
        if let Err(error) = sent
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
