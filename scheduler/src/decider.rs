//! The core with what it decided: facts go to the journal, effects wait in the outbox until these are durable.
//!
//! Invariants: no batch of facts comes near the most that the journal takes, however much one turn
//! decides; an effect leaves only once the facts before it are durable; how much waits is known in bytes.

use crate::limits::{FACT_BYTES_AT_ONCE, FACT_BYTES_WAITING_MAX, OUTBOX_BYTES_MAX, OUTBOX_MAX};
use fleetwire_common::{facts::FactBatch, ids::Position, time::Time};
use fleetwire_disk::{JournalWriter, WriterFailed};
use fleetwire_journal::Outbox;
use fleetwire_link::weight;
use fleetwire_scheduler_core::{Effect, Effects, Event, Scheduler};
use std::collections::VecDeque;

/// Decides, and keeps what was decided until it is durable.
pub(crate) struct Decider {
    core: Scheduler,
    effects: Effects,
    /// What waits for no fact: it leaves at the end of the turn.
    prompt: Vec<Effect>,
    outbox: Outbox<(usize, Effect)>,
    /// About how many bytes the outbox holds.
    outbox_bytes: usize,
    journal: JournalWriter,
    /// The batches that are not known to be durable: the last position and the bytes of each.
    written: VecDeque<(Position, usize)>,
    written_bytes: usize,
    durable: Position,
}

impl Decider {
    pub fn new(core: Scheduler, journal: JournalWriter, durable: Position) -> Decider {
        Decider {
            core,
            effects: Effects::new(),
            prompt: Vec::new(),
            outbox: Outbox::default(),
            outbox_bytes: 0,
            journal,
            written: VecDeque::new(),
            written_bytes: 0,
            durable,
        }
    }

    pub fn core(&self) -> &Scheduler {
        &self.core
    }

    /// Decides that this incarnation has started.
    pub fn start(&mut self, now: Time) {
        self.core.start(now, &mut self.effects);
        self.after_step();
    }

    /// Lets the core handle an event.
    pub fn handle(&mut self, now: Time, event: Event<'_>) {
        self.core.handle(now, event, &mut self.effects);
        self.after_step();
    }

    /// Whether so much waits for the disk that nothing more should be taken in.
    pub fn is_full(&self) -> bool {
        self.outbox.is_full(OUTBOX_MAX)
            || self.outbox_bytes >= OUTBOX_BYTES_MAX
            || self.written_bytes >= FACT_BYTES_WAITING_MAX
    }

    /// Tells the core whether the disk has room for more than what must be written.
    pub fn look_at_disk(&mut self, now: Time) {
        let (low, blob_segments_max) = (self.journal.is_low(), self.journal.blob_segments_max());
        let known = self.core.live().disk;
        if low != known.low {
            match low {
                true => tracing::warn!(
                    "the disk is full: no new job is taken until there is room for another journal segment. Free \
                     space on the disk of the data folder; results and cancels are still kept, for a while"
                ),
                false => tracing::info!("the disk has room again: new jobs are taken"),
            }
        }
        if (low, blob_segments_max) != (known.low, known.blob_segments_max) {
            self.handle(now, Event::Disk { low, blob_segments_max });
        }
    }

    /// Hands the facts that were decided to the journal.
    pub fn commit(&mut self) {
        if self.effects.facts.is_empty() {
            return;
        }
        let facts: FactBatch = std::mem::replace(&mut self.effects.facts, self.journal.spare());
        self.written.push_back((self.core.position(), facts.weight()));
        self.written_bytes += facts.weight();
        // Why the writer stopped comes on the other channel; nothing is released meanwhile.
        let _ = self.journal.append(facts);
    }

    /// What was decided up to there is durable.
    pub fn on_durable(&mut self, durable: Position) {
        self.durable = self.durable.max(durable);
        while let Some((_, bytes)) = self.written.pop_front_if(|(position, _)| *position <= self.durable) {
            self.written_bytes -= bytes;
        }
    }

    /// Whether all that was decided is durable.
    pub fn is_settled(&self) -> bool {
        self.durable >= self.core.position()
    }

    /// Takes out what waits for no fact, and then, in order, the effects of what is durable.
    pub fn release(&mut self) -> impl Iterator<Item = Effect> + '_ {
        let waiting = &mut self.outbox_bytes;
        let released = self.outbox.release(self.durable).map(|(bytes, effect)| {
            *waiting -= bytes;
            effect
        });
        self.prompt.drain(..).chain(released)
    }

    /// Commits, and ends the journal's thread once all of it is written.
    pub fn stop(mut self) -> Result<Position, WriterFailed> {
        self.commit();
        self.journal.stop()
    }

    fn after_step(&mut self) {
        self.prompt.extend(self.effects.drain_prompt());
        for (position, effect) in self.effects.drain() {
            let bytes = effect_bytes(&effect);
            self.outbox_bytes += bytes;
            self.outbox.push(position, (bytes, effect));
        }
        if self.effects.facts.weight() >= FACT_BYTES_AT_ONCE {
            self.commit();
        }
    }
}

/// About how many bytes an effect holds while it waits.
fn effect_bytes(effect: &Effect) -> usize {
    match effect {
        Effect::Send { message, .. } | Effect::Complete { message, .. } => weight(message),
        Effect::Close { reason: text, .. } | Effect::RefuseEnrolment { message: text, .. } => {
            size_of::<Effect>() + text.len()
        }
        Effect::Certify { .. } | Effect::Token { .. } => size_of::<Effect>(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use fleetwire_common::{
        envelope::{
            Features,
            handshake::HelloInfo,
            keys::{RootKeys, Secret},
        },
        fb,
        ids::{Name, Principal, SessionId, SubmitId},
        job::{JobSpec, TaskSpec},
        limits::PARAMETERS_BYTES_MAX,
        message::MessageRef,
    };
    use fleetwire_disk::{FsDisk, WriterConfig};
    use fleetwire_journal::{BATCH_BYTES_MAX, Identity, Journal, JournalConfig};
    use fleetwire_scheduler_core::{Config, Origin, Policy};
    use std::{convert::Infallible, path::Path, time::Duration};

    const NOW: Time = Time(1_700_000_000_000_000);
    const SESSION: SessionId = SessionId(1);

    /// A decider whose journal is in this folder, with one operator's session.
    fn decider(folder: &Path) -> Decider {
        let core = Scheduler::new(Config {
            cluster: "c".into(),
            keys: RootKeys::new(Secret::new([1; 32])),
            authority_sha256: [2; 32],
            addresses: Vec::new(),
            incarnation_id: [3; 16],
            seed: 4,
            heartbeat_interval: Duration::from_secs(30),
            software: "test".into(),
            accept_restore: false,
            policy: Policy::default(),
        });
        let config = JournalConfig::new(Identity::IfNew([7; 16]));
        let disk = FsDisk::open(&folder.join("journal")).unwrap();
        let (journal, _) = Journal::open(disk, &config, |_, _: &[u8]| Ok::<(), Infallible>(())).unwrap();
        let journal = JournalWriter::start(journal, WriterConfig::default(), |_| {}).unwrap();
        let mut decider = Decider::new(core, journal, Position(0));
        decider.start(NOW);
        let (name, role) = (Name::new("anna").unwrap(), fb::Role::Operator);
        decider.handle(NOW, Event::EnrolLocally { name: name.clone(), role, key_sha256: [5; 32] });
        let hello = HelloInfo {
            features: Features::ALL,
            boot_id: [1; 16],
            process_start_id: [2; 16],
            receipt: None,
            software: "test".into(),
        };
        let principal = Principal { role, name };
        decider.handle(NOW, Event::Connected { session: SESSION, principal, hello, address: "::1" });
        decider
    }

    /// A job of nearly the largest size there may be.
    fn large_job() -> JobSpec {
        let entry = |number| TaskSpec {
            name: Name::new(&format!("entry-{number}")).unwrap(),
            executor: fb::Executor::Noop,
            parameters: format!("\"{}\"", "x".repeat(PARAMETERS_BYTES_MAX - 2)),
            ..TaskSpec::default()
        };
        JobSpec::new(Name::new("large").unwrap(), (0..33).map(entry).collect(), 300).unwrap()
    }

    #[test]
    fn more_than_the_journal_takes_at_once_is_appended_in_parts() {
        let folder = tempfile::tempdir().unwrap();
        let mut decider = decider(folder.path());
        let job = large_job().to_wire();
        for number in 0..20 {
            let id = SubmitId::new(NOW.as_ms(), [number; 10]);
            let submit = fb::SubmitJobT { request: 1, submit_id: Some(id.0.to_vec()), job: Some(job.clone()) };
            let mut builder = flatbuffers::FlatBufferBuilder::new();
            let root = submit.pack(&mut builder);
            builder.finish(root, None);
            let submit = flatbuffers::root::<fb::SubmitJob<'_>>(builder.finished_data()).unwrap();
            let message = MessageRef::SubmitJob(submit);
            decider.handle(NOW, Event::Received { session: SESSION, from: Origin::default(), message });
        }
        assert_eq!(decider.core().state().jobs.len(), 20);
        assert!(20 * job.len() > BATCH_BYTES_MAX);
        assert!(decider.is_full(), "nothing more is taken in until the disk has some of it");
        let last = decider.core().position();
        decider.on_durable(last);
        assert_eq!(decider.release().count(), 20);
        assert!(!decider.is_full() && decider.outbox_bytes == 0);
        assert_eq!(decider.stop(), Ok(last));
    }
}
