//! What a run exercised: every kind of fact, every way in which an attempt can end, every message and every
//! refusal. A promise that is never put to the test is not kept by luck for long.

use crate::{
    faults::{self, Fault},
    history::MadeWay,
    reserving::Agrees,
    world::Node,
};
use fleetwire_agent_core as agent;
use fleetwire_common::{
    fb,
    graph::Dependency,
    job::{Semaphore, TaskSpec},
    message::{Ack, Message},
    terms::Terms,
};
use std::collections::BTreeMap;

const NOT_RETRIED: u16 = 100;
const EXCLUSIVE: u16 = 101;
const HOLDS: u16 = 102;
const UNPLACEABLE: u16 = 103;
const GANG: u16 = 104;

/// How often each thing happened, by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    counts: BTreeMap<(Area, u16, u16), u64>,
}

/// What kind of thing is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// A fact of the scheduler.
    Fact,
    /// An attempt's end, by status and reason.
    End,
    /// What became of the task then.
    Then,
    /// A message from the scheduler.
    ToPeer,
    /// A message from an agent.
    FromAgent,
    /// A refusal by the scheduler, by its code.
    Refusal,
    /// What a register was answered about an attempt.
    Verdict,
    /// A misfortune that struck.
    Fault,
    /// A process that came to its end by itself.
    Died,
    /// What was done with a snapshot.
    Snapshot,
    /// An attempt went from one stage to another, as the scheduler sees it.
    Stage,
    /// A session that the scheduler ended, by its code.
    Closed,
    /// Something that an agent's core asked its shell to do.
    Does,
    /// What an agent's start found of an attempt.
    Found,
    /// What a job's terms decided.
    Terms,
    /// What was done with a backup.
    Restoring,
    /// Tasks that ended without an attempt, by status and reason.
    Waiting,
    /// A task was assigned that comes after others: what they had to come to.
    After,
    /// An agent was reserved, or given to others meanwhile.
    Reserved,
}

/// How far an attempt is in the scheduler's eyes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Assigned.
    Assigned,
    /// Its agent has persisted it.
    Accepted,
    /// Its process runs.
    Running,
    /// Its agent was not heard for too long.
    Suspect,
    /// It has ended, and its agent has not said that it is gone.
    Ended,
    /// Nothing of it is left.
    Gone,
}

const STAGES: [Stage; 6] =
    [Stage::Assigned, Stage::Accepted, Stage::Running, Stage::Suspect, Stage::Ended, Stage::Gone];

/// What was done with a backup of the scheduler's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restoring {
    /// It was made.
    Made,
    /// It took the place of the original.
    PutBack,
    /// The original took its place again.
    Original,
}

/// How a process came to its end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// It was killed between two things that it does.
    AtWork,
    /// Its journal failed.
    ByItsDisk,
    /// Its disk failed while it started.
    AtItsStart,
}

impl Coverage {
    /// Counts a fact of the scheduler.
    pub fn fact(&mut self, bytes: &[u8]) {
        let Ok(record) = flatbuffers::root::<fb::FactRecord<'_>>(bytes) else { return };
        self.count(Area::Fact, u16::from(record.fact_type().0), 0);
        if let Some(ended) = record.fact_as_attempt_ended() {
            let reason = ended.end().map_or(fb::EndReason::default(), |end| end.reason());
            self.count(Area::End, ended.status().0 as u16, u16::from(reason.0));
            self.count(Area::Then, ended.task_status().0 as u16, u16::from(ended.ends_rival()));
        }
        if let Some(ended) = record.fact_as_tasks_ended() {
            self.count(Area::Waiting, ended.status().0 as u16, u16::from(ended.reason().0));
        }
    }

    /// Counts a message of the scheduler.
    pub fn to_peer(&mut self, message: &Message) {
        let ack = match message {
            Message::Ack(Ack::Request(_)) => 1,
            Message::Ack(Ack::Final(_)) => 2,
            Message::Ack(Ack::Heartbeat(_)) => 3,
            _ => 0,
        };
        self.count(Area::ToPeer, u16::from(message.kind().0), ack);
        match message {
            Message::Rare(fb::SchedulerMessageT::Nack(nack)) => self.count(Area::Refusal, nack.code.0, 0),
            Message::Rare(fb::SchedulerMessageT::Registered(registered)) => {
                for answer in registered.answers.iter().flatten() {
                    self.count(Area::Verdict, u16::from(answer.verdict.0), 0);
                }
            }
            _ => {}
        }
    }

    /// Counts a step of an attempt; `None`: it is seen for the first time.
    pub fn stage(&mut self, before: Option<Stage>, after: Stage) {
        self.count(Area::Stage, before.map_or(STAGES.len(), |stage| stage as usize) as u16, after as u16);
    }

    /// Counts a session that the scheduler ended.
    pub fn closed(&mut self, code: fb::ErrorCode) {
        self.count(Area::Closed, code.0, 0);
    }

    /// Counts an effect of an agent's core.
    pub fn does(&mut self, effect: &agent::Effect) {
        let what = match effect {
            agent::Effect::Send(_) => 0,
            agent::Effect::Spawn { .. } => 1,
            agent::Effect::Cancel { .. } => 2,
            agent::Effect::ReadLog { .. } => 3,
            agent::Effect::Settled { .. } => 4,
            agent::Effect::Close { .. } => 5,
            agent::Effect::Stage { .. } => 6,
            agent::Effect::StartStaged => 7,
            agent::Effect::Unstage { .. } => 8,
        };
        self.count(Area::Does, what, 0);
    }

    /// Counts what an agent's start found of an attempt.
    pub fn found(&mut self, recovered: &agent::Recovered) {
        let what = match recovered {
            agent::Recovered::Running => 0,
            agent::Recovered::Ended { .. } => 1,
        };
        self.count(Area::Found, what, 0);
    }

    /// Counts what terms decided when an attempt ended, and its task with it if it did.
    pub fn terms(&mut self, terms: &Terms, made_way: Option<MadeWay>, ended: Option<fb::TaskStatus>) {
        if let Some(made_way) = made_way {
            self.count(Area::Terms, u16::from(terms.keep.0), made_way as u16);
        }
        if !terms.retry_lost && ended == Some(fb::TaskStatus::Lost) {
            self.count(Area::Terms, NOT_RETRIED, 0);
        }
        if terms.exclusive {
            self.count(Area::Terms, EXCLUSIVE, u16::from(ended.is_none()));
        }
    }

    /// Counts a job that was refused because no agent could ever run it.
    pub fn unplaceable(&mut self) {
        self.count(Area::Terms, UNPLACEABLE, 0);
    }

    /// Counts an assignment of what holds semaphores.
    pub fn holds(&mut self, semaphores: &[Semaphore]) {
        if !semaphores.is_empty() {
            self.count(Area::Terms, HOLDS, u16::from(semaphores.len() > 1));
        }
    }

    /// Counts an assignment of a gang's member.
    pub fn is_of_gang(&mut self, spec: &TaskSpec) {
        if spec.gang > 0 {
            self.count(Area::Terms, GANG, u16::from(spec.gang_lost.0));
        }
    }

    /// Counts what was done with a backup.
    pub fn restoring(&mut self, what: Restoring) {
        self.count(Area::Restoring, what as u16, 0);
    }

    /// Counts an assignment of a task that comes after others.
    pub fn after(&mut self, dependency: &Dependency) {
        self.count(Area::After, u16::from(dependency.on.0), u16::from(dependency.each));
    }

    /// Counts a reservation, or what goes on a reserved agent.
    pub fn reserved(&mut self, agrees: Option<Agrees>) {
        self.count(Area::Reserved, agrees.map_or(0, |agrees| 1 + agrees as u16), 0);
    }

    /// Counts a fact of an agent.
    pub fn fact_of_agent(&mut self, bytes: &[u8]) {
        if let Ok(record) = flatbuffers::root::<fb::FactRecord<'_>>(bytes) {
            self.count(Area::Fact, u16::from(record.fact_type().0), 1);
        }
    }

    /// Counts a message of an agent.
    pub fn from_agent(&mut self, message: &Message) {
        self.count(Area::FromAgent, u16::from(message.kind().0), 0);
    }

    /// Counts a misfortune.
    pub fn fault(&mut self, fault: Fault) {
        self.count(Area::Fault, fault as u16, 0);
    }

    /// Counts the end of a process.
    pub fn died(&mut self, node: Node, how: Death) {
        self.count(Area::Died, u16::from(node != Node::Scheduler), how as u16);
    }

    /// Counts a snapshot that was made.
    pub fn snapshot_taken(&mut self, of: Node) {
        self.count(Area::Snapshot, 0, u16::from(of != Node::Scheduler));
    }

    /// Counts a start that began with a snapshot.
    pub fn snapshot_read(&mut self, of: Node) {
        self.count(Area::Snapshot, 1, u16::from(of != Node::Scheduler));
    }

    /// Adds another run's counts.
    pub fn add(&mut self, other: &Coverage) {
        for (what, count) in &other.counts {
            *self.counts.entry(*what).or_default() += count;
        }
    }

    /// Everything that happened, by name, with how often.
    pub fn names(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        self.counts.iter().map(|((area, first, second), count)| (name(*area, *first, *second), *count))
    }

    fn count(&mut self, area: Area, first: u16, second: u16) {
        *self.counts.entry((area, first, second)).or_default() += 1;
    }
}

fn name(area: Area, first: u16, second: u16) -> String {
    let byte = first as u8;
    let status = |status: u16| fb::TaskStatus(status as i8);
    match area {
        Area::Fact if second == 1 => format!("agent's fact {:?}", fb::FactBody(byte)),
        Area::Fact => format!("fact {:?}", fb::FactBody(byte)),
        Area::End => format!("end {:?} by {:?}", status(first), fb::EndReason(second as u8)),
        Area::Waiting => format!("waiting, {:?} by {:?}", status(first), fb::EndReason(second as u8)),
        Area::After => {
            let of = if second == 0 { "all of an entry" } else { "each of an array" };
            format!("assigned on {:?} of {of}", fb::DependencyOn(byte))
        }
        Area::Then if second == 1 => format!("then {:?}, the rival ends too", status(first)),
        Area::Then => format!("then {:?}", status(first)),
        Area::Reserved => {
            let what = [
                "an agent is reserved",
                "on a reserved agent: what comes before",
                "on a reserved agent: what ends in time",
                "on a reserved agent: what leaves enough",
            ];
            what.get(usize::from(first)).copied().unwrap_or_default().to_owned()
        }
        Area::ToPeer if second > 0 => {
            let of = ["", "a request", "a result", "a heartbeat"].get(usize::from(second)).copied().unwrap_or_default();
            format!("scheduler says {:?} of {of}", fb::SchedulerMessage(byte))
        }
        Area::ToPeer => format!("scheduler says {:?}", fb::SchedulerMessage(byte)),
        Area::FromAgent => format!("agent says {:?}", fb::SchedulerMessage(byte)),
        Area::Refusal => format!("refused as {:?}", fb::ErrorCode(first)),
        Area::Verdict => format!("verdict {:?}", fb::AttemptVerdict(byte)),
        Area::Fault => {
            let fault = faults::ALL.iter().find(|fault| **fault as u16 == first);
            fault.map_or_else(String::new, |fault| format!("fault {fault:?}"))
        }
        Area::Stage => {
            let stage = |place: u16| STAGES.get(usize::from(place));
            let before = stage(first).map_or_else(|| String::from("new"), |stage| format!("{stage:?}"));
            format!("attempt {before} → {:?}", stage(second).unwrap_or(&Stage::Gone))
        }
        Area::Closed => format!("session closed as {:?}", fb::ErrorCode(first)),
        Area::Does => {
            let what = [
                "sends",
                "spawns",
                "cancels",
                "reads a log",
                "recycles a slot",
                "closes its session",
                "stages",
                "starts a staged one",
                "takes a staged one back",
            ];
            format!("agent {}", what.get(usize::from(first)).copied().unwrap_or_default())
        }
        Area::Found => {
            let what = ["running", "ended"].get(usize::from(first)).copied().unwrap_or_default();
            format!("agent's start finds an attempt {what}")
        }
        Area::Restoring => {
            let what = ["backup made", "backup put back", "the original of a backup put back"];
            what.get(usize::from(first)).copied().unwrap_or_default().to_owned()
        }
        Area::Terms => match (first, second) {
            (NOT_RETRIED, _) => "lost work is not retried".to_owned(),
            (UNPLACEABLE, _) => "refused, for no agent could ever run it".to_owned(),
            (HOLDS, 0) => "what holds a semaphore is assigned".to_owned(),
            (HOLDS, _) => "what holds several semaphores is assigned".to_owned(),
            (GANG, on_lost) => format!("a member of a gang is assigned: {:?}", fb::OnLost(on_lost as u8)),
            (EXCLUSIVE, 0) => "exclusive work ends".to_owned(),
            (EXCLUSIVE, _) => "exclusive work is tried again".to_owned(),
            (keep, way) => {
                let which = if way == MadeWay::Original as u16 { "original" } else { "replacement" };
                format!("keep {:?}: the {which} makes way", fb::Keep(keep as u8))
            }
        },
        Area::Snapshot => {
            let whose = if second == 0 { "snapshot" } else { "agent's snapshot" };
            format!("{whose} {}", if first == 0 { "taken" } else { "read" })
        }
        Area::Died => {
            let who = if first == 0 { "scheduler" } else { "agent" };
            let how = ["killed at work", "ended by its disk", "failed to start"].get(usize::from(second));
            format!("{who} {}", how.copied().unwrap_or_default())
        }
    }
}
