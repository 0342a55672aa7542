//! What the shells do between a core and a connection, at either end.

use crate::{
    network::{ConnectionId, End},
    world::World,
};
use fleetwire_common::{
    envelope::{
        Sealer,
        handshake::{Greeting, Session},
    },
    fb,
    message::Message,
    time::Time,
};

/// The one connection that an agent or client has.
#[derive(Debug)]
pub enum Link {
    /// None.
    Down,
    /// `Hello` was sent, at this time of the own clock.
    Greeting(ConnectionId, Greeting, u64),
    /// A session.
    Open(ConnectionId, Box<Session>),
}

impl Link {
    /// The connection, if there is one.
    pub fn connection(&self) -> Option<ConnectionId> {
        match self {
            Link::Down => None,
            Link::Greeting(connection, ..) | Link::Open(connection, _) => Some(*connection),
        }
    }
}

/// Seals messages and sends them: many as one batch, what is too large for a frame on a bulk stream.
pub fn send(
    world: &mut World,
    connection: ConnectionId,
    to: End,
    sealer: &mut Sealer,
    bulk_streams: &mut u32,
    now: Time,
    messages: &[Message],
) {
    let mut rest = messages;
    while let Some(first) = rest.first() {
        let mut out = Vec::new();
        let taken = sealer.seal(now.as_ms(), rest, &mut out);
        if taken > 0 {
            world.send_frames(connection, to, 0, &out);
            rest = rest.get(taken..).unwrap_or_default();
            continue;
        }
        *bulk_streams += 1;
        if sealer.seal_bulk(now.as_ms(), *bulk_streams, first, &mut out).is_ok() {
            world.send_frames(connection, to, *bulk_streams, &out);
        }
        rest = rest.get(1..).unwrap_or_default();
    }
}

/// A message in a few words.
pub fn words(message: &Message) -> String {
    match message {
        Message::Assignment(assignment) => format!("Assignment {}", assignment.attempt),
        Message::Status(status) => format!("Status {} {:?}", status.attempt, status.status),
        Message::Acceptance(id) => format!("Acceptance {id}"),
        Message::Cancellation(id, reason) => format!("Cancellation {id} {reason:?}"),
        Message::Recall(id) => format!("Recall {id}"),
        Message::Ack(ack) => format!("{ack:?}"),
        Message::Rare(fb::SchedulerMessageT::Nack(nack)) => {
            let (code, text, task) = (nack.code, nack.message.as_deref(), nack.task_id.as_deref());
            format!("Nack {code:?} {} {}", task.unwrap_or_default(), text.unwrap_or_default())
        }
        other => format!("{:?}", other.kind()),
    }
}
