//! The story of a restored backup: recognised by what agents prove, and accepted by the operator.
//!
//! Invariants: what is not proved by a genuine receipt changes nothing; between proof and acceptance nothing
//! is assigned and no job is taken; numbers of jobs that may have been given are not given again.

use crate::{
    core::Core,
    event::Effects,
    fact::Fact,
    restored::{Restored, Verdict},
};
use fleetwire_common::{
    envelope::handshake::Proof,
    ids::{JobId, Name, Position},
};

impl Core {
    /// An agent returned a receipt: whether it proves that this journal is a backup of one that went on, which
    /// nobody has accepted yet. Such an agent is better left alone: what it holds is right if the other journal is.
    pub fn is_from_beyond(&mut self, agent: &Name, proof: Option<Proof>, effects: &mut Effects) -> bool {
        let Some(proof) = proof.filter(|proof| self.config.keys.verify(proof)) else { return false };
        let (missing, accepted) = match self.state.chain.judge(&proof, self.position) {
            Verdict::Own => return false,
            Verdict::Known(missing) => (missing, true),
            Verdict::Beyond(missing) => (missing, false),
        };
        let chain = &self.state.chain;
        let first = !accepted && chain.restored.is_none();
        // Each job took one fact at least.
        let base = if first { self.state.last_job } else { chain.base_job };
        let last_job = JobId(base.0.saturating_add(missing));
        if first || chain.told_job < last_job {
            let restored = Restored {
                incarnation: proof.receipt.incarnation(),
                id: proof.incarnation_id,
                position: Position(proof.receipt.position()),
                agent: agent.clone(),
                last_job,
            };
            self.decide(&Fact::BackupRestored(restored), effects);
        }
        !accepted
    }

    /// At a start: the operator goes on with the backup, if it is one.
    pub fn accept_restore(&mut self, effects: &mut Effects) {
        let Some(restored) = self.state.chain.restored.as_ref().filter(|_| self.config.accept_restore) else { return };
        let incarnation = restored.incarnation.max(self.state.incarnation).saturating_add(1);
        self.decide(&Fact::RestoreAccepted { incarnation }, effects);
    }

    /// Why nothing is assigned, in words; `None` if it is.
    pub fn notice(&self) -> Option<String> {
        let restored = self.state.chain.restored.as_ref()?;
        Some(format!(
            "nothing is assigned: this journal is a restored backup. Agent `{}` has proof of incarnation {}, position {}, \
             which is not in it. Start the scheduler on the data that went on, or restart it with --accept-restore",
            restored.agent, restored.incarnation, restored.position.0
        ))
    }
}
