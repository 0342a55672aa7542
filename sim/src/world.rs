//! What all parts of a simulated cluster share: the time, what will happen, the network, the randomness,
//! and the record of what happened.

use crate::{
    device::Step,
    faults::{Fault, Setting},
    network::{ConnectionId, End, Network, Peer},
    queue::Queue,
    random::Random,
    trace::Trace,
};
use fleetwire_common::{
    envelope::keys::{Epoch, RootKeys, Secret},
    ids::AttemptId,
    time::Time,
};
use std::time::Duration;

/// A process with a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// The scheduler.
    Scheduler,
    /// The agent of that number.
    Agent(usize),
}

/// Something that will happen. What concerns one life of a process bears its number, and is nothing once
/// that life is over.
#[derive(Clone, Debug)]
pub enum Happening {
    /// A frame may have arrived at this end.
    Look(ConnectionId, End),
    /// This end learns that its connection is gone.
    Gone(ConnectionId, End),
    /// A peer tries to connect.
    Dial(Peer, u64),
    /// A process drains what has arrived, and does what is due.
    Wake(Node, u64),
    /// A process sums its journal up.
    Snapshot(Node, u64),
    /// A sync has ended.
    Synced(Node, u64),
    /// Effects that became durable leave.
    Release(Node, u64),
    /// A process is started again.
    Start(Node, u64),
    /// An agent that said goodbye exits, and is started again after so long.
    Stop(usize, u64, Duration),
    /// A step of a task's process.
    Process(usize, AttemptId, u64, Step),
    /// A client looks at what it wants next.
    Client(usize),
    /// A misfortune.
    Fault(Fault),
    /// The operator goes on with a restored backup.
    AcceptRestore,
    /// A node's disk works again.
    Mend(Node),
    /// A peer is no longer cut off.
    Heal(Peer),
    /// A connection has heard nothing for its idle timeout, if the cut of that number still lasts.
    Idle(ConnectionId, End, u64),
}

/// What all parts share.
#[derive(Debug)]
pub struct World {
    /// Virtual cluster time.
    pub now: Time,
    /// What will happen.
    pub queue: Queue<Happening>,
    /// The network.
    pub network: Network,
    /// Randomness of delays and misfortunes.
    pub random: Random,
    /// What happened.
    pub trace: Trace,
    /// What the run is like.
    pub setting: Setting,
    /// The cluster's keys.
    pub keys: RootKeys,
    /// The key epoch.
    pub epoch: Epoch,
}

/// When every simulation begins: some day in 2026, so that UUIDv7s and timestamps look like real ones.
pub const BEGAN: Time = Time(1_780_000_000_000_000);

impl World {
    /// An empty world.
    pub fn new(seed: u64, setting: Setting, readable: bool) -> World {
        let mut random = Random::new(seed);
        World {
            now: BEGAN,
            queue: Queue::default(),
            network: Network::default(),
            keys: RootKeys::new(Secret::new(random.bytes())),
            epoch: Epoch { number: 1, secret: Secret::new(random.bytes()) },
            random,
            trace: Trace::new(BEGAN, readable),
            setting,
        }
    }

    /// Plans something for later.
    pub fn plan(&mut self, after: Duration, what: Happening) {
        self.queue.plan(self.now + after, what);
    }

    /// A random time between these.
    pub fn between(&mut self, from: Duration, to: Duration) -> Duration {
        Duration::from_micros(self.random.between(from.as_micros() as u64, to.as_micros() as u64))
    }

    /// Plans a process's next snapshot, if there are any.
    pub fn plan_snapshot(&mut self, node: Node, life: u64) {
        // Agents write less.
        let every = self.setting.snapshot_every * if node == Node::Scheduler { 1 } else { 4 };
        if every > Duration::ZERO {
            let after = self.between(Duration::from_millis(1), every * 2);
            self.plan(after, Happening::Snapshot(node, life));
        }
    }

    /// How long a sync takes on a disk that is slow until then.
    pub fn sync_takes(&mut self, slow_until: Time) -> Duration {
        if self.now < slow_until {
            self.between(Duration::from_millis(500), Duration::from_secs(8))
        } else {
            self.between(Duration::from_micros(30), self.setting.sync_max)
        }
    }

    /// Sends frames that lie one behind the other in `bytes`, each by its length prefix.
    pub fn send_frames(&mut self, connection: ConnectionId, to: End, stream: u32, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((prefix, _)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*prefix) as usize + 4;
            let Some((frame, after)) = rest.split_at_checked(length) else { return };
            rest = after;
            self.trace.bytes(frame);
            let sent = self.network.send(connection, to, stream, frame.to_vec(), self.now, &mut self.random);
            if let Some(at) = sent {
                self.queue.plan(at, Happening::Look(connection, to));
            }
        }
    }

    /// Makes a new connection for a peer.
    pub fn connect(&mut self, peer: Peer) -> ConnectionId {
        let delay = self.between(Duration::from_micros(100), self.setting.delay_max);
        let jitter = self.between(Duration::ZERO, delay);
        self.network.connect(peer, delay, jitter)
    }

    /// One end closes: the other learns of it when everything sent before has arrived.
    pub fn close(&mut self, connection: ConnectionId, by: End) {
        let Some(open) = self.network.connection(connection) else { return };
        let learns = open.drained_at(by.other()).max(self.now + open.delay());
        self.network.close(connection, by);
        self.queue.plan(learns, Happening::Gone(connection, by.other()));
    }

    /// One end vanished without a word: the other learns of it sooner or later.
    pub fn vanish(&mut self, connection: ConnectionId, end: End) {
        self.network.break_off(connection);
        self.network.close(connection, end);
        let learns = self.between(Duration::from_millis(1), Duration::from_secs(40));
        self.plan(learns, Happening::Gone(connection, end.other()));
    }
}
