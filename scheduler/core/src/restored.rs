//! The journal's own chain of incarnations, and proof that it is a backup of one that went on.
//!
//! Invariant: a receipt is judged only once its MAC has proved that a scheduler of this cluster made it. One
//! that this chain cannot have made is proof that another chain did; what is behind `accepted` was told before.

use fleetwire_common::{
    envelope::handshake::Proof,
    ids::{JobId, Name, Position},
    time::Time,
};
use std::collections::BTreeMap;

/// Starts that are remembered. Replay depends on it.
pub const INCARNATIONS_KEPT: usize = 1_024;

/// What an agent proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The receipt's incarnation,
    pub incarnation: u64,
    /// its random id,
    pub id: [u8; 16],
    /// and how far it had come.
    pub position: Position,
    /// Who returned it.
    pub agent: Name,
    /// Numbers of jobs up to this may have been given.
    pub last_job: JobId,
}

/// The starts of this journal, and what was proved about others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// The random id of each start, and the position at which it began.
    pub starts: BTreeMap<u64, ([u8; 16], Position)>,
    /// While it is not accepted: the latest proof that this is a restored backup.
    pub restored: Option<Restored>,
    /// Receipts of incarnations before this, from other chains, are no news any more.
    pub accepted: u64,
    /// When the operator last went on with a backup; 0 = never.
    pub accepted_at: Time,
    /// The last job's number when the latest other chain was first heard of,
    pub base_job: JobId,
    /// and up to which it may have given numbers.
    pub told_job: JobId,
}

/// What a genuine receipt says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This chain made it, or may have.
    Own,
    /// Another chain made it, and the operator knows: at most so many facts of it are not here.
    Known(u64),
    /// Another chain made it: at most so many facts of it are not here.
    Beyond(u64),
}

impl Chain {
    pub(crate) fn begin(&mut self, incarnation: u64, id: [u8; 16], position: Position) {
        // An earlier version did not write down where it began: nothing can be told of those.
        if position > Position(0) {
            self.starts.insert(incarnation, (id, position));
        }
        if self.starts.len() > INCARNATIONS_KEPT {
            self.starts.pop_first();
        }
    }

    /// Takes a proof; `last_job` is the number of the last job here.
    pub(crate) fn tell(&mut self, restored: &Restored, last_job: JobId) {
        let accepted = restored.incarnation < self.accepted;
        if !accepted && self.restored.is_none() {
            (self.base_job, self.told_job) = (last_job, JobId(0));
        }
        self.told_job = self.told_job.max(restored.last_job);
        if !accepted {
            self.restored = Some(restored.clone());
        }
    }

    pub(crate) fn accept(&mut self, incarnation: u64, at: Time) {
        self.accepted_at = at;
        self.restored = None;
        self.accepted = self.accepted.max(incarnation);
    }

    /// Judges a receipt whose MAC was verified. `position` is how far this chain has come.
    pub fn judge(&self, proof: &Proof, position: Position) -> Verdict {
        let (incarnation, reached) = (proof.receipt.incarnation(), proof.receipt.position());
        let missing = match self.starts.get(&incarnation) {
            Some((id, _)) if *id == proof.incarnation_id => {
                let next = self.starts.range(incarnation.saturating_add(1)..).next();
                let end = next.map_or(position.0, |(_, (_, began))| began.0.saturating_sub(1));
                reached.saturating_sub(end)
            }
            Some(_) => reached.max(1),
            // Before what is remembered nothing can be told.
            None if self.starts.first_key_value().is_some_and(|(first, _)| incarnation < *first) => 0,
            None => reached.max(1),
        };
        match missing {
            0 => Verdict::Own,
            missing if incarnation < self.accepted => Verdict::Known(missing),
            missing => Verdict::Beyond(missing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetwire_common::fb;

    #[test]
    fn only_what_this_chain_cannot_have_made_is_from_beyond() {
        let mut chain = Chain::default();
        chain.begin(1, [1; 16], Position(1));
        chain.begin(2, [2; 16], Position(50));
        let judge = |chain: &Chain, incarnation, id: u8, position| {
            let receipt = fb::Receipt::new(incarnation, position, &[0; 16]);
            chain.judge(&Proof { receipt, incarnation_id: [id; 16] }, Position(60))
        };
        assert_eq!(judge(&chain, 1, 1, 49), Verdict::Own);
        assert_eq!(judge(&chain, 1, 1, 50), Verdict::Beyond(1), "the first start went on elsewhere");
        assert_eq!(judge(&chain, 2, 2, 60), Verdict::Own);
        assert_eq!(judge(&chain, 2, 2, 70), Verdict::Beyond(10));
        assert_eq!(judge(&chain, 2, 9, 3), Verdict::Beyond(3), "a fork of the same number");
        assert_eq!(judge(&chain, 3, 3, 0), Verdict::Beyond(1));
        chain.accept(4, Time(1));
        assert_eq!(judge(&chain, 3, 3, 80), Verdict::Known(80));
        assert_eq!(judge(&chain, 4, 4, 80), Verdict::Beyond(80));
    }
}
