//! Agents whose processes run for ever: the real core and link, without a disk and without an executor.

use super::DIALS;
use fleetwire_agent_core::{Agent, Config, Effect, Effects, Event, RunEvent};
use fleetwire_common::{
    envelope::{Features, handshake::HelloInfo},
    facts::FactBatch,
    fb,
    ids::{Name, Position},
    resources::Resources,
    time::Time,
    token::JoinToken,
};
use fleetwire_link::{Backoff, ClusterClock, Connected, DeviceKey, Identity, Link, LinkConfig, connect, enrol};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// How long all of them may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// All agents.
pub struct Fleet {
    count: usize,
    identities: Vec<Identity>,
    seen: Arc<Seen>,
}

/// What they have come to.
#[derive(Default)]
struct Seen {
    /// Those that are registered in a session.
    ready: AtomicUsize,
    /// Sessions in which one was registered.
    registered: AtomicU64,
    /// Attempts that were started.
    started: AtomicU64,
}

impl Fleet {
    /// Lets so many devices join the cluster.
    pub async fn enrol(token: &str, count: usize) -> Fleet {
        let token: Arc<JoinToken> = Arc::new(JoinToken::from_text(token).unwrap());
        let (mut joining, mut identities, mut number) = (JoinSet::new(), Vec::new(), 0);
        while identities.len() < count {
            while number < count && joining.len() < DIALS {
                let (token, name) = (Arc::clone(&token), Name::new(&format!("a{number}")).unwrap());
                joining.spawn(async move {
                    let key = DeviceKey::generate().unwrap();
                    let mut backoff = Backoff::default();
                    loop {
                        match enrol(&token, &name, &key, &LinkConfig::default()).await {
                            Ok(identity) => return identity,
                            Err(_) => tokio::time::sleep(backoff.delay()).await,
                        }
                    }
                });
                number += 1;
            }
            identities.extend(joining.join_next().await.map(Result::unwrap));
        }
        Fleet { count, identities, seen: Arc::default() }
    }

    /// Begins their lives, all over an interval of heartbeats, until all are registered.
    pub async fn connect(&self) {
        for (number, identity) in self.identities.iter().enumerate() {
            let (identity, seen) = (identity.clone(), Arc::clone(&self.seen));
            let turn = super::turn(number, self.count);
            tokio::spawn(async move {
                tokio::time::sleep(turn).await;
                Device::new(number, identity, seen).live().await;
            });
        }
        self.wait_for("are registered", || self.seen.ready.load(Relaxed)).await;
    }

    /// Waits until each has started its attempt.
    pub async fn all_run(&self) {
        self.wait_for("run something", || self.started() as usize).await;
    }

    /// Waits until all were registered once more.
    pub async fn all_return(&self) {
        let again = || (self.seen.registered.load(Relaxed) as usize).saturating_sub(self.count);
        self.wait_for("have returned", || again().min(self.seen.ready.load(Relaxed))).await;
    }

    /// How many attempts were started.
    pub fn started(&self) -> u64 {
        self.seen.started.load(Relaxed)
    }

    async fn wait_for(&self, what: &str, reached: impl Fn() -> usize) {
        let began = Instant::now();
        while reached() < self.count {
            assert!(began.elapsed() < PATIENCE, "{} of {} {what}", reached(), self.count);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// One agent.
struct Device {
    identity: Identity,
    agent: Agent,
    effects: Effects,
    clock: ClusterClock,
    hello: HelloInfo,
    is_ready: bool,
    seen: Arc<Seen>,
}

impl Device {
    fn new(number: usize, identity: Identity, seen: Arc<Seen>) -> Device {
        let id = (number as u128).to_le_bytes();
        let mut agent = Agent::new(Config {
            name: identity.principal.name.clone(),
            capacity: Resources { cpu: 1_000, memory: 1_024, gpu: 0, storage: 10 },
            labels: Vec::new(),
            custom: Default::default(),
            agent_types: vec![fb::AgentType::Trainer],
            executors: vec![fb::Executor::Process],
            data_id: id,
            address: String::new(),
            software: "bench".to_owned(),
            host: "bench".to_owned(),
            heartbeat_interval: super::HEARTBEAT,
        });
        let mut effects = Effects::new();
        agent.start(ClusterClock::local(), &mut effects);
        agent.handle(ClusterClock::local(), Event::Surveyed { rebooted: false }, &mut effects);
        let hello = HelloInfo {
            features: Features::ALL,
            boot_id: id,
            process_start_id: id,
            receipt: None,
            software: "bench".to_owned(),
        };
        Device { identity, agent, effects, clock: ClusterClock::from_wall(), hello, is_ready: false, seen }
    }

    /// Connects again and again, as the agent's connector does.
    async fn live(mut self) {
        let mut backoff = Backoff::default();
        loop {
            self.hello.receipt = self.agent.receipt();
            let config = LinkConfig::default();
            let connected = connect(&self.identity.addresses, &self.identity, &self.hello, &self.clock, &config).await;
            if let Ok(connected) = connected {
                backoff.reset();
                self.session(connected).await;
            }
            tokio::time::sleep(backoff.delay()).await;
        }
    }

    /// One session, to its end.
    async fn session(&mut self, connected: Connected) {
        let Connected { mut link, mut welcome, .. } = connected;
        welcome.cluster_time = self.clock.now();
        self.handle(Event::Connected { welcome }, &link);
        let mut frames = Vec::new();
        loop {
            self.note_ready();
            let wait = self.agent.next_deadline().unwrap_or(Time(u64::MAX)).since(ClusterClock::local());
            let came = tokio::select! {
                came = link.receiver.recv_many(&mut frames) => came.is_ok(),
                () = tokio::time::sleep(wait) => true,
            };
            if !came || !self.receive(&mut link, &mut frames) {
                break;
            }
            if self.agent.next_deadline().is_some_and(|at| at <= ClusterClock::local()) {
                self.handle(Event::Deadline, &link);
            }
        }
        self.handle(Event::Disconnected, &link);
        self.note_ready();
    }

    /// Opens what came; says whether the session goes on.
    fn receive(&mut self, link: &mut Link, frames: &mut Vec<fleetwire_link::Frame>) -> bool {
        for frame in frames.drain(..) {
            let opened = link.opener.open(&frame.bytes, frame.stream, frame.arrived_ms, frame.tolerance_ms());
            let Ok(opened) = opened else { return false };
            let timestamp_ms = opened.timestamp_ms;
            for (_, message) in opened.messages() {
                let now = ClusterClock::local();
                self.agent.handle(now, Event::Received { message, timestamp_ms }, &mut self.effects);
            }
        }
        self.carry_out(link)
    }

    fn handle(&mut self, event: Event<'_>, link: &Link) -> bool {
        self.agent.handle(ClusterClock::local(), event, &mut self.effects);
        self.carry_out(link)
    }

    /// Does what was decided; all of it counts as durable. What is spawned runs.
    fn carry_out(&mut self, link: &Link) -> bool {
        loop {
            if let Some(offset) = self.agent.cluster_offset_us() {
                self.clock.set_offset_us(offset);
            }
            self.effects.facts = FactBatch::default();
            let decided: Vec<(Position, Effect)> = self.effects.drain().collect();
            if decided.is_empty() {
                return true;
            }
            for (_, effect) in decided {
                match effect {
                    Effect::Send(message) => drop(link.sender.send(message)),
                    Effect::Close { .. } => return false,
                    Effect::Spawn { attempt, .. } => {
                        self.seen.started.fetch_add(1, Relaxed);
                        let event = RunEvent::Started { attempt, at_ms: self.clock.now().as_ms() };
                        self.agent.handle(ClusterClock::local(), Event::Run(event), &mut self.effects);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Counts this one among those that are registered, or no more.
    fn note_ready(&mut self) {
        let is_ready = self.agent.live().is_ready();
        if is_ready != std::mem::replace(&mut self.is_ready, is_ready) {
            if is_ready {
                self.seen.registered.fetch_add(1, Relaxed);
                self.seen.ready.fetch_add(1, Relaxed);
            } else {
                self.seen.ready.fetch_sub(1, Relaxed);
            }
        }
    }
}
