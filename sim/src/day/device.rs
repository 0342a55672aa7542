//! An agent of a day that is run again: it runs what it is given for as long as that ran then.
//!
//! Invariants: nothing takes time but runs themselves: messages arrive at once, what is to stop has stopped. What it holds
//! while it is away goes on, and is told when it is back; if it dies, all of it is gone.

use super::Run;
use fleetwire_common::{
    envelope::{Features, Opener, Sealer, keys::MacKey, keys::Secret},
    fb,
    ids::{AttemptId, JobKey, SessionId},
    job,
    message::{End, Message, Status},
    resources::Resources,
};
use fleetwire_scheduler_core::agents::AgentProfile;
use std::{collections::BTreeMap, sync::Arc};

/// The agent.
#[derive(Debug, Default)]
pub(super) struct Device {
    /// What it offers; `None` = it was never there.
    pub profile: Option<Arc<AgentProfile>>,
    /// While it is there.
    pub session: Option<SessionId>,
    /// What runs.
    pub held: BTreeMap<AttemptId, Held>,
    /// Ends that it could not tell yet.
    pub untold: Vec<(AttemptId, JobKey, fb::TaskStatus, End)>,
    /// How often it died.
    deaths: u64,
}

/// What runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// What it takes.
    pub resources: Resources,
    /// Of which job.
    pub key: JobKey,
    /// For how long, and how it ends.
    pub run: Run,
}

impl Device {
    /// Everything that it had is gone.
    pub fn die(&mut self) {
        self.held.clear();
        self.untold.clear();
        self.deaths += 1;
    }

    /// How it registers.
    pub fn register(&self) -> Option<Message> {
        let profile = self.profile.as_ref()?;
        let report = |attempt: &AttemptId, key: JobKey, resources: Resources| fb::AttemptReportT {
            task_id: Some(attempt.task.to_string()),
            attempt: attempt.attempt,
            status: fb::TaskStatus::Running,
            resources: Some(Box::new(resources.to_wire())),
            job_key: key.0,
            ..fb::AttemptReportT::default()
        };
        let held = self.held.iter().map(|(attempt, held)| report(attempt, held.key, held.resources));
        let untold = self.untold.iter().map(|(attempt, key, ..)| report(attempt, *key, Resources::ZERO));
        let labels: Vec<_> = profile.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        // What was on its disk is gone with each death.
        let data_id = (u128::from_be_bytes(profile.data_id) ^ u128::from(self.deaths)).to_be_bytes();
        Some(Message::Rare(fb::SchedulerMessageT::Register(Box::new(fb::RegisterT {
            capacity: Some(Box::new(profile.capacity.to_wire_with(&profile.custom))),
            labels: Some(job::key_values(&labels)),
            agent_types: Some(profile.agent_types.clone()),
            executors: Some(profile.executors.clone()),
            data_id: Some(data_id.to_vec()),
            attempts: Some(held.chain(untold).collect()),
            software: Some(profile.software.clone()),
            host: Some(profile.host.clone()),
            ..fb::RegisterT::default()
        }))))
    }
}

/// What an agent says of an attempt that runs, or has ended.
pub(super) fn status(attempt: AttemptId, key: JobKey, status: fb::TaskStatus, end: Option<End>) -> Message {
    Message::Status(Status {
        attempt,
        status,
        progress: 0.0,
        note: String::new(),
        metrics: Vec::new(),
        end: end.map(Box::new),
        job_key: key,
    })
}

/// One session's seals.
pub(super) struct Wire {
    sealer: Sealer,
    opener: Opener,
    frame: Vec<u8>,
    /// Frames sent.
    pub sequence: u64,
}

impl Wire {
    pub fn new() -> Wire {
        let key = MacKey::new(&Secret::new([9; 32]));
        Wire {
            sealer: Sealer::new(key.clone(), 1, Features::ALL),
            opener: Opener::new(key, 1),
            frame: Vec::new(),
            sequence: 0,
        }
    }

    /// A message, as it arrives. `None`: none that this version could send.
    pub fn carry(&mut self, now_ms: u64, message: Message) -> Option<fleetwire_common::envelope::Opened<'_>> {
        self.frame.clear();
        self.sealer.seal(now_ms, &[message], &mut self.frame);
        self.sequence += 1;
        self.opener.open(&self.frame, 0, now_ms, STALE_AFTER_MS).ok()
    }
}

/// Nothing is ever late here.
const STALE_AFTER_MS: u64 = 5_000;
