//! The network between the scheduler and its peers: connections with a delay of their own, each a
//! handful of ordered streams, that can stall, be cut off in one direction or both, and break.
//!
//! Invariants, as QUIC gives them: what a stream delivers is a prefix of what was sent on it; streams and
//! connections are not ordered with each other; a connection that broke delivers nothing more; the two sides
//! learn of that at different moments.

use crate::random::Random;
use fleetwire_common::time::Time;
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// Number of a connection, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// Whoever connects to the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// The agent of that number.
    Agent(usize),
    /// The client of that number.
    Client(usize),
}

/// One end of a connection, or the direction that leads there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The scheduler's.
    Scheduler,
    /// The agent's or client's.
    Peer,
}

/// A frame on its way.
#[derive(Clone, Debug)]
pub struct Flying {
    /// When it arrives, if nothing comes between.
    pub arrives: Time,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Pipe {
    streams: BTreeMap<u32, VecDeque<Flying>>,
    latest: BTreeMap<u32, Time>,
    /// The last frame that arrived on the control stream: what somebody in between could send again.
    seen: Vec<u8>,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    /// Who made it.
    pub peer: Peer,
    delay: Duration,
    jitter: Duration,
    to_scheduler: Pipe,
    to_peer: Pipe,
    broken: bool,
    scheduler_knows: bool,
    peer_knows: bool,
}

/// All connections, and who is cut off.
#[derive(Debug, Default)]
pub struct Network {
    connections: BTreeMap<ConnectionId, Connection>,
    cut_off: BTreeMap<(Peer, End), ()>,
    made: u64,
}

impl End {
    /// The other end.
    pub fn other(self) -> End {
        match self {
            End::Scheduler => End::Peer,
            End::Peer => End::Scheduler,
        }
    }
}

impl Network {
    /// A new connection.
    pub fn connect(&mut self, peer: Peer, delay: Duration, jitter: Duration) -> ConnectionId {
        self.made += 1;
        let id = ConnectionId(self.made);
        let connection = Connection {
            peer,
            delay,
            jitter,
            to_scheduler: Pipe::default(),
            to_peer: Pipe::default(),
            broken: false,
            scheduler_knows: false,
            peer_knows: false,
        };
        self.connections.insert(id, connection);
        id
    }

    /// The connection, unless both ends have forgotten it.
    pub fn connection(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(&id)
    }

    /// All connections of a peer.
    pub fn of_peer(&self, peer: Peer) -> Vec<ConnectionId> {
        self.connections.iter().filter(|(_, connection)| connection.peer == peer).map(|(id, _)| *id).collect()
    }

    /// All connections.
    pub fn all(&self) -> Vec<ConnectionId> {
        self.connections.keys().copied().collect()
    }

    /// Whether frames of this peer arrive at that end.
    pub fn reaches(&self, peer: Peer, end: End) -> bool {
        !self.cut_off.contains_key(&(peer, end))
    }

    /// Sends a frame to an end; returns when to look for it there. `None`: the connection is broken.
    pub fn send(
        &mut self,
        id: ConnectionId,
        to: End,
        stream: u32,
        bytes: Vec<u8>,
        now: Time,
        random: &mut Random,
    ) -> Option<Time> {
        let connection = self.connections.get_mut(&id).filter(|connection| !connection.broken)?;
        // Bulk streams have the lower priority: what goes on them is overtaken now and then.
        let bulk = if stream == 0 { 0 } else { random.between(0, connection.delay.as_micros() as u64) };
        let jitter = random.between(0, connection.jitter.as_micros() as u64);
        let arrives = now + connection.delay + Duration::from_micros(jitter + bulk);
        let pipe = connection.pipe(to);
        let latest = pipe.latest.entry(stream).or_default();
        *latest = arrives.max(*latest);
        let arrives = *latest;
        pipe.streams.entry(stream).or_default().push_back(Flying { arrives, bytes });
        Some(arrives)
    }

    /// Takes what has arrived at an end of a connection by now, stream by stream.
    pub fn arrived(&mut self, id: ConnectionId, at: End, now: Time, into: &mut Vec<(u32, Vec<u8>)>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.broken || self.cut_off.contains_key(&(connection.peer, at)) {
            return;
        }
        let pipe = connection.pipe(at);
        for (stream, flying) in &mut pipe.streams {
            while let Some(frame) = flying.pop_front_if(|frame| frame.arrives <= now) {
                if *stream == 0 {
                    pipe.seen.clone_from(&frame.bytes);
                }
                into.push((*stream, frame.bytes));
            }
        }
    }

    /// The frame that arrived last at an end of a connection.
    pub fn latest_frame(&self, id: ConnectionId, at: End) -> Option<Vec<u8>> {
        let connection = self.connections.get(&id)?;
        let pipe = match at {
            End::Scheduler => &connection.to_scheduler,
            End::Peer => &connection.to_peer,
        };
        (!pipe.seen.is_empty()).then(|| pipe.seen.clone())
    }

    /// Cuts a peer off: nothing more arrives at that end until [`Network::heal`].
    pub fn cut_off(&mut self, peer: Peer, end: End) {
        self.cut_off.insert((peer, end), ());
    }

    /// Lets a peer's frames through again: what was held up sets out anew. Returns when to look where.
    pub fn heal(&mut self, peer: Peer, now: Time) -> Vec<(Time, ConnectionId, End)> {
        let mut looks = Vec::new();
        for end in [End::Scheduler, End::Peer] {
            if self.cut_off.remove(&(peer, end)).is_none() {
                continue;
            }
            for (id, connection) in self.connections.iter_mut().filter(|(_, connection)| connection.peer == peer) {
                let soonest = now + connection.delay;
                let pipe = connection.pipe(end);
                for (stream, flying) in &mut pipe.streams {
                    for frame in flying.iter_mut() {
                        frame.arrives = frame.arrives.max(soonest);
                        looks.push((frame.arrives, *id, end));
                    }
                    if let Some(last) = flying.back() {
                        pipe.latest.insert(*stream, last.arrives);
                    }
                }
            }
        }
        looks
    }

    /// Holds up everything on a connection for a while, in both directions: a radio gap.
    pub fn stall(&mut self, id: ConnectionId, until: Time) -> Vec<(Time, ConnectionId, End)> {
        let mut looks = Vec::new();
        let Some(connection) = self.connections.get_mut(&id) else { return looks };
        for end in [End::Scheduler, End::Peer] {
            let pipe = connection.pipe(end);
            for stream in [0u32].into_iter().chain(pipe.streams.keys().copied().collect::<Vec<_>>()) {
                let latest = pipe.latest.entry(stream).or_default();
                *latest = until.max(*latest);
                for frame in pipe.streams.entry(stream).or_default() {
                    frame.arrives = frame.arrives.max(until);
                    looks.push((frame.arrives, id, end));
                }
            }
        }
        looks
    }

    /// Breaks a connection: what is under way is lost.
    pub fn break_off(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.broken = true;
            connection.to_peer = Pipe::default();
            connection.to_scheduler = Pipe::default();
        }
    }

    /// One end has closed it or learnt that it is broken. Forgotten once both have.
    pub fn close(&mut self, id: ConnectionId, end: End) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match end {
            End::Scheduler => connection.scheduler_knows = true,
            End::Peer => connection.peer_knows = true,
        }
        *connection.pipe(end) = Pipe::default();
        if connection.scheduler_knows && connection.peer_knows {
            self.connections.remove(&id);
        }
    }
}

impl Connection {
    /// How long a frame takes at least.
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// Whether it delivers nothing more.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// When everything sent to that end has arrived there.
    pub fn drained_at(&self, end: End) -> Time {
        let pipe = match end {
            End::Scheduler => &self.to_scheduler,
            End::Peer => &self.to_peer,
        };
        pipe.latest.values().copied().max().unwrap_or_default()
    }

    fn pipe(&mut self, to: End) -> &mut Pipe {
        match to {
            End::Scheduler => &mut self.to_scheduler,
            End::Peer => &mut self.to_peer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_stream_keeps_its_order_and_delivers_a_prefix() {
        let (mut network, mut random) = (Network::default(), Random::new(3));
        let id = network.connect(Peer::Agent(0), 5 * MS, 50 * MS);
        let mut last = Time::ZERO;
        for number in 0..50u8 {
            let at = network.send(id, End::Scheduler, 0, vec![number], Time(u64::from(number)), &mut random);
            last = at.unwrap_or_default();
        }
        let mut got = Vec::new();
        network.arrived(id, End::Scheduler, Time(last.0 / 2), &mut got);
        network.arrived(id, End::Scheduler, last, &mut got);
        assert_eq!(got.iter().flat_map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>(), (0..50).collect::<Vec<u8>>());
        network.send(id, End::Scheduler, 0, vec![1], last, &mut random);
        network.break_off(id);
        got.clear();
        network.arrived(id, End::Scheduler, Time::NEVER, &mut got);
        assert!(got.is_empty());
        assert_eq!(network.send(id, End::Peer, 0, vec![1], last, &mut random), None);
    }

    #[test]
    fn what_a_partition_held_up_arrives_in_order_after_it() {
        let (mut network, mut random) = (Network::default(), Random::new(4));
        let id = network.connect(Peer::Client(0), 5 * MS, Duration::ZERO);
        network.cut_off(Peer::Client(0), End::Peer);
        for number in 0..3 {
            network.send(id, End::Peer, 0, vec![number], Time(0), &mut random);
        }
        let mut got = Vec::new();
        network.arrived(id, End::Peer, Time(1_000_000), &mut got);
        assert!(got.is_empty());
        let looks = network.heal(Peer::Client(0), Time(2_000_000));
        assert_eq!(looks.first(), Some(&(Time(2_005_000), id, End::Peer)));
        let after = network.send(id, End::Peer, 0, vec![3], Time(2_000_000), &mut random);
        network.arrived(id, End::Peer, after.unwrap_or_default(), &mut got);
        assert_eq!(got.iter().flat_map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }
}
