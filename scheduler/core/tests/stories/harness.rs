//! A scheduler on virtual time, and peers whose messages are sealed and opened as on the wire.
//!
//! After every event the facts that it decided are decoded from their bytes and applied to a shadow
//! state, which must equal the live one; and what the agents hold, as their messages say, must fit into
//! their capacity.

mod agents;
mod operators;

pub use agents::AgentModel;
use fleetwire_common::{
    blob::BlobRef,
    envelope::{Features, Opener, Sealer, handshake::HelloInfo, keys::MacKey, keys::RootKeys, keys::Secret},
    fb,
    graph::Graph,
    ids::*,
    job::{JobSpec, TaskSpec, Terms},
    message::{Heartbeat, Message},
    resources::Resources,
    time::Time,
};
use fleetwire_scheduler_core::{
    Config, Effect, Effects, Event, Origin, Policy, Scheduler, State,
    bodies::complete,
    fact::Fact,
    waits::{Verdict, stands},
};
use std::{collections::BTreeMap, time::Duration};

pub struct T {
    pub scheduler: Scheduler,
    pub now: Time,
    pub facts: Vec<Vec<u8>>,
    pub shadow: State,
    pub closed: Vec<(SessionId, fb::ErrorCode)>,
    pub other: Vec<Effect>,
    /// What lies beside the journal, by its place.
    pub bodies: BTreeMap<BlobRef, Vec<u8>>,
    /// An agent has come to hold more than it has: that is a story's own doing.
    pub skip_fit: bool,
    peers: BTreeMap<SessionId, Peer>,
    agents: BTreeMap<String, AgentModel>,
    config: Config,
    effects: Effects,
    sessions: u64,
    requests: u64,
}

struct Peer {
    sealer: Sealer,
    opener: Opener,
    inbox: Vec<Message>,
    agent: Option<String>,
    sequence: u64,
}

pub fn config() -> Config {
    Config {
        cluster: "c".into(),
        keys: RootKeys::new(Secret::new([1; 32])),
        authority_sha256: [2; 32],
        addresses: vec!["localhost:7450".into()],
        incarnation_id: [3; 16],
        seed: 7,
        heartbeat_interval: Duration::from_secs(30),
        software: "test".into(),
        accept_restore: false,
        policy: Policy::default(),
    }
}

pub fn small() -> Resources {
    Resources { cpu: 1_000, memory: 100, gpu: 0, storage: 0 }
}

pub fn task() -> TaskSpec {
    TaskSpec { command: "true".into(), resources: small(), ..TaskSpec::default() }
}

pub fn job(tasks: Vec<TaskSpec>) -> JobSpec {
    // Stories tell of what waits, whatever agents there are.
    let terms = Terms { await_agents: true, ..Terms::lost_after(60) };
    JobSpec::new(Name::new("j").unwrap(), tasks, terms).unwrap()
}

pub fn id(job: u64, entry: u16, index: u32) -> TaskId {
    TaskId { job: JobId(job), entry, index }
}

pub fn attempt(job: u64, index: u32, attempt: u32) -> AttemptId {
    AttemptId { task: id(job, 0, index), attempt }
}

pub fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

impl T {
    pub fn new() -> T {
        T::with(config())
    }

    pub fn with(config: Config) -> T {
        let mut t = T {
            scheduler: Scheduler::new(config.clone()),
            now: Time::from_ms(1_700_000_000_000),
            facts: Vec::new(),
            shadow: State::default(),
            closed: Vec::new(),
            other: Vec::new(),
            bodies: BTreeMap::new(),
            skip_fit: false,
            peers: BTreeMap::new(),
            agents: BTreeMap::new(),
            config,
            effects: Effects::new(),
            sessions: 0,
            requests: 0,
        };
        t.scheduler.start(t.now, &mut t.effects);
        t.settle();
        t.has_room();
        t
    }

    /// The facts of a snapshot of all that is known.
    pub fn snapshot(&self) -> Vec<Vec<u8>> {
        let mut facts = Vec::new();
        let mut keep = |fact: &[u8]| {
            facts.push(fact.to_vec());
            Ok::<(), std::convert::Infallible>(())
        };
        self.scheduler.state().write_snapshot(&mut keep).unwrap();
        facts
    }

    /// A scheduler starts on these facts, with this random id; all sessions are gone.
    pub fn restore(&mut self, facts: Vec<Vec<u8>>, incarnation_id: u8, accept_restore: bool) {
        self.config = Config { incarnation_id: [incarnation_id; 16], accept_restore, ..self.config.clone() };
        let mut scheduler = Scheduler::new(self.config.clone());
        for fact in &facts {
            scheduler.replay(fact).unwrap();
        }
        self.shadow = scheduler.state().clone();
        self.facts = facts;
        self.scheduler = scheduler;
        self.peers.clear();
        for agent in self.agents.values_mut() {
            agent.session = None;
        }
        self.scheduler.start(self.now, &mut self.effects);
        self.settle();
    }

    /// The scheduler dies and starts again on a snapshot; all sessions are gone. Its facts say the same.
    pub fn restart(&mut self) {
        let mut scheduler = Scheduler::new(self.config.clone());
        for fact in &self.facts {
            scheduler.replay(fact).unwrap();
        }
        assert_eq!(scheduler.state(), self.scheduler.state());
        assert_eq!(scheduler.position(), self.scheduler.position());
        let mut restored = Scheduler::new(self.config.clone());
        for fact in self.snapshot() {
            restored.replay_at(scheduler.position(), &fact).unwrap();
        }
        assert_eq!(restored.state(), scheduler.state());
        assert_eq!(restored.position(), scheduler.position());
        self.scheduler = restored;
        self.peers.clear();
        for agent in self.agents.values_mut() {
            agent.session = None;
        }
        self.scheduler.start(self.now, &mut self.effects);
        self.settle();
    }

    pub fn handle(&mut self, event: Event<'_>) {
        self.scheduler.handle(self.now, event, &mut self.effects);
        self.settle();
    }

    /// The disk has room for all that may come.
    pub fn has_room(&mut self) {
        self.handle(Event::Disk { low: false, blob_segments_max: u64::MAX });
    }

    fn settle(&mut self) {
        let mut assigned = Vec::new();
        for fact in self.effects.facts.iter() {
            let (at, decoded) = Fact::decode(fact).unwrap();
            if let Fact::AttemptAssigned { attempt, .. } = &decoded {
                assigned.push(*attempt);
            }
            self.shadow.apply(at, &decoded).unwrap();
            self.facts.push(fact.to_vec());
        }
        self.bodies.extend(self.effects.facts.blobs().map(|(blob, bytes)| (blob, bytes.to_vec())));
        self.effects.facts.clear();
        assert_eq!(self.scheduler.position().0, self.facts.len() as u64);
        assert_eq!(&self.shadow, self.scheduler.state(), "what facts say differs from what is live");
        for effect in self.effects.drain_prompt().collect::<Vec<_>>() {
            self.take(effect);
        }
        let effects: Vec<_> = self.effects.drain().collect();
        let mut last = Position(0);
        for (position, effect) in effects {
            assert!(position >= last, "effects bear their positions in order");
            last = position;
            self.take(effect);
        }
        self.check_fit();
        self.check_nothing_waits_needlessly();
        self.check_dependents();
        self.check_caps();
        self.check_semaphores();
        self.check_gangs(&assigned);
    }

    fn take(&mut self, effect: Effect) {
        match effect {
            Effect::Complete { session, mut message, lacks } => {
                let read = |blob: &BlobRef| self.bodies.get(blob).cloned().ok_or(());
                match complete(&mut message, &lacks, read) {
                    Ok(()) => self.take(Effect::Send { session, message }),
                    Err(()) => self.handle(Event::Unreadable { session, message, why: "it is gone".into() }),
                }
            }
            Effect::Send { session, message } => {
                let Some(peer) = self.peers.get_mut(&session) else { return };
                if let (Message::Assignment(assignment), Some(agent)) = (&message, &peer.agent) {
                    let agent = self.agents.get_mut(agent).unwrap();
                    agent.take_on(assignment.attempt, assignment.job_key, assignment.spec.resources);
                }
                peer.inbox.push(message);
            }
            Effect::Close { session, code, .. } => {
                self.closed.push((session, code));
                self.drop_peer(session);
            }
            other => self.other.push(other),
        }
    }

    fn drop_peer(&mut self, session: SessionId) {
        if let Some(peer) = self.peers.remove(&session)
            && let Some(agent) = peer.agent.and_then(|agent| self.agents.get_mut(&agent))
            && agent.session == Some(session)
        {
            agent.session = None;
        }
    }

    /// P3, by the agents' own books: what they hold fits into what they have.
    fn check_fit(&self) {
        if self.skip_fit {
            return;
        }
        for (name, agent) in &self.agents {
            let sum = agent.used();
            assert!(sum.fits(agent.capacity), "{name} holds {sum:?} of {:?}", agent.capacity);
        }
    }

    /// No class that waits fits an agent that may be given work.
    fn check_nothing_waits_needlessly(&self) {
        let live = self.scheduler.live();
        if live.unplanned || self.scheduler.state().chain.restored.is_some() {
            return;
        }
        for id in live.queue.turns().map(|turn| turn.class) {
            let class = live.queue.find(id).unwrap();
            let mut idle = Vec::new();
            for (agent, record) in self.scheduler.state().agents.iter() {
                let room = live.index.room(agent);
                let fits = class.request.resources.fits(room.free) && room.held < self.config.policy.attempts_per_agent;
                // What is reserved is looked at again now and then, not as time passes.
                let is_reserved = live.index.reserved.holds(agent);
                let is_seat = class.is_of_gangs() && live.queue.seats.has(class.first_gang().unwrap(), agent);
                let admits = live.queue.has_quota(id) && live.queue.admits(id, agent, live.index.free(agent));
                if !is_reserved && !is_seat && room.placeable && fits && admits {
                    idle.push(&record.name);
                }
            }
            assert!(idle.len() < class.unit() as usize, "{idle:?} are idle");
        }
    }

    /// What comes after others is in the queue once those came to what they must, and has ended once they cannot.
    fn check_dependents(&self) {
        let live = self.scheduler.live();
        for (id, job) in &self.scheduler.state().jobs {
            let all_small = job.entries.iter().all(|entry| entry.spec.count < 100);
            let Some(known) = live.jobs.get(id).filter(|known| all_small && known.settled) else { continue };
            let Some(graph) = Graph::of(&job.spec.tasks).unwrap() else { continue };
            for (ordinal, entry) in job.ordinals().zip(&job.entries) {
                let class = live.queue.find(known.classes[usize::from(ordinal)]).unwrap();
                for index in entry.unstarted.ranges(()).flatten() {
                    let verdicts = graph.needs_of(ordinal).iter().map(|need| stands(job, need, index));
                    let verdict = verdicts.max().unwrap_or(Verdict::Met);
                    let task = TaskId { job: *id, entry: ordinal, index };
                    let held_back = known.caps.as_ref().is_some_and(|caps| caps.holds_back(ordinal, index));
                    let waits = class.holds(task) || held_back;
                    let for_its_gang = entry.spec.gang > 0 && !waits;
                    assert_eq!(waits, verdict == Verdict::Met && !for_its_gang, "{task} {verdict:?}");
                    assert!(verdict != Verdict::Never, "{task} waits in vain");
                }
            }
        }
    }

    /// No more than a cap allows is assigned, as the facts say; of the rest just so much is in the queue as may be.
    fn check_caps(&self) {
        let (state, live) = (self.scheduler.state(), self.scheduler.live());
        for (id, job) in state.jobs.iter().filter(|(_, job)| job.ended_at.is_none()) {
            let Some(caps) = &live.jobs[id].caps else { continue };
            let gathering = &live.jobs[id].gathering;
            let gathers = |task: TaskId| gathering.as_ref().is_some_and(|it| it.holds(task.entry, task.index));
            let open = |of: &dyn Fn(u16) -> bool| -> usize {
                let records = state.tasks.iter().filter(|(task, _)| task.job == *id && of(task.entry));
                records.map(|(_, record)| record.open.count()).sum()
            };
            let room = |max: u32, open: usize| match max {
                0 => usize::MAX,
                max => (max as usize).checked_sub(open).expect("no more than the cap"),
            };
            let whole = room(job.spec.terms.max_running, open(&|_| true));
            for (ordinal, entry) in job.ordinals().zip(&job.entries) {
                let room = room(entry.spec.max_running, open(&|of| of == ordinal)).min(whole);
                let tasks = (0..entry.spec.count).map(|index| TaskId { job: *id, entry: ordinal, index });
                let (held_back, waits): (Vec<TaskId>, Vec<TaskId>) = tasks
                    .filter(|task| live.waits(*task) && !gathers(*task))
                    .partition(|task| caps.holds_back(ordinal, task.index));
                assert!(waits.len() <= room, "{waits:?} are in the queue, there is room for {room}");
                let less = entry.spec.gang.max(1) as usize;
                assert!(held_back.is_empty() || waits.len() + less > room, "{held_back:?} are held back in vain");
            }
        }
    }

    /// Agents hold no more of any name than there is, by their own books.
    fn check_semaphores(&self) {
        let mut held: BTreeMap<Name, (u32, u32)> = BTreeMap::new();
        for attempt in self.agents.values().flat_map(|agent| agent.holds.keys()) {
            let Some(spec) = self.scheduler.state().task_spec(attempt.task) else { continue };
            for one in &spec.semaphores {
                let (units, max) = held.entry(one.name.clone()).or_default();
                (*units, *max) = (*units + one.units, one.max);
                assert!(units <= max, "{units} units of `{}` are held, of {max}", one.name);
            }
        }
    }

    /// Of a gang all that has not ended is assigned in one event, unless one is replaced; and no two are on one agent, by the
    /// agents' own books.
    fn check_gangs(&self, assigned: &[AttemptId]) {
        let state = self.scheduler.state();
        let gang = |task: TaskId| {
            let spec = state.task_spec(task).filter(|spec| spec.gang > 0)?;
            Some((spec.gang_lost, spec.gang_of(task.index)))
        };
        for AttemptId { task, attempt } in assigned {
            let Some((on_lost, members)) = gang(*task) else { continue };
            if on_lost == fb::OnLost::Replace && *attempt > 1 {
                continue;
            }
            for index in members {
                let other = TaskId { index, ..*task };
                let together = assigned.iter().any(|one| one.task == other);
                let ended = state.task_status(other).is_some_and(fleetwire_common::message::is_final);
                assert!(together || ended, "{task} was assigned without {other}");
            }
        }
        for (name, agent) in &self.agents {
            let mut seen = BTreeMap::new();
            for attempt in agent.holds.keys() {
                let Some((_, members)) = gang(attempt.task) else { continue };
                let before = seen.insert((attempt.task.job, attempt.task.entry, members.start), attempt);
                assert!(before.is_none(), "{name} has {attempt} and {before:?} of one gang");
            }
        }
    }

    pub fn connect(&mut self, role: fb::Role, name: &str) -> SessionId {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        let key = MacKey::new(&Secret::new([9; 32]));
        let agent = (role == fb::Role::Agent).then(|| name.to_owned());
        let peer = Peer {
            sealer: Sealer::new(key.clone(), 1, Features::ALL),
            opener: Opener::new(key, 1),
            inbox: Vec::new(),
            agent,
            sequence: 0,
        };
        self.peers.insert(session, peer);
        let hello = HelloInfo {
            features: Features::ALL,
            boot_id: [0; 16],
            process_start_id: [0; 16],
            receipt: self.agents.get(name).filter(|_| role == fb::Role::Agent).and_then(|agent| agent.proof),
            software: String::new(),
        };
        let principal = Principal { role, name: Name::new(name).unwrap() };
        let address = format!("{name}.example");
        self.handle(Event::Connected { session, principal, hello, address: &address });
        session
    }

    pub fn operator(&mut self) -> SessionId {
        self.connect(fb::Role::Operator, "op")
    }

    pub fn disconnect(&mut self, session: SessionId) {
        self.drop_peer(session);
        self.handle(Event::Disconnected { session });
    }

    /// Sends a message in a session, sealed and opened.
    pub fn send(&mut self, session: SessionId, message: Message) {
        let mut frame = Vec::new();
        let peer = self.peers.get_mut(&session).unwrap();
        let now_ms = self.now.as_ms();
        assert_eq!(peer.sealer.seal(now_ms, &[message], &mut frame), 1);
        let opened = peer.opener.open(&frame, 0, now_ms, 5_000).unwrap();
        let from = Origin { stream: 0, sequence: peer.sequence, item: 0, timestamp_ms: now_ms };
        peer.sequence += 1;
        let message = opened.message().unwrap();
        self.scheduler.handle(self.now, Event::Received { session, from, message }, &mut self.effects);
        self.settle();
    }

    /// Everything that came in a session since the last look.
    pub fn inbox(&mut self, session: SessionId) -> Vec<Message> {
        self.peers.get_mut(&session).map(|peer| std::mem::take(&mut peer.inbox)).unwrap_or_default()
    }

    /// Lets time pass, handling every deadline when it is due.
    pub fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(due) = self.scheduler.next_deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.handle(Event::Deadline);
        }
        self.now = end;
    }

    /// Lets time pass while all agents beat.
    pub fn pass_beating(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            let sessions: Vec<_> = self.agents.values().filter_map(|agent| agent.session).collect();
            for session in sessions {
                self.send(session, Message::Heartbeat(Heartbeat::default()));
            }
            self.pass(Duration::from_secs(20).min(end.since(self.now)));
        }
    }
}
