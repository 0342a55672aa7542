//! Whether an agent is there to stay: whose connection was lost again and again is given nothing until it has been there for a
//! while (quarantine).
//!
//! Invariants: a goodbye is no loss; what runs there goes on. Volatile: a start, which loses all connections itself, begins anew.

use crate::policy::Policy;
use fleetwire_common::time::Time;

/// How an agent comes and goes.
#[derive(Debug, Default)]
pub struct Presence {
    /// Losses, none of them long after the one before.
    losses: u32,
    lost_at: Time,
    /// It has not been there since.
    away: bool,
    until: Option<Time>,
}

impl Presence {
    /// Its connection was lost. Returns when its quarantine would have ended, if it was in one.
    pub fn lose(&mut self, policy: &Policy, now: Time) -> Option<Time> {
        if now.since(self.lost_at) > policy.flapping_within {
            self.losses = 0;
        }
        self.losses = self.losses.saturating_add(1);
        (self.lost_at, self.away) = (now, true);
        self.until.take()
    }

    /// It is there again. Returns until when it is given nothing, if it must show first that it stays.
    pub fn arrive(&mut self, policy: &Policy, now: Time) -> Option<Time> {
        // It may register again and again in one session.
        let was_away = std::mem::take(&mut self.away);
        let more = self.losses.checked_sub(policy.flapping_losses).filter(|_| was_away)?;
        let stay = policy.quarantine.saturating_mul(1 << more.min(16)).min(policy.quarantine_max);
        self.until = Some(now + stay);
        self.until
    }

    /// It has stayed.
    pub fn settle(&mut self, now: Time) {
        self.until = self.until.filter(|until| *until > now);
    }

    /// Whether it may be given work.
    pub fn is_settled(&self) -> bool {
        self.until.is_none()
    }

    /// Why it is given none, in words.
    pub fn in_words(&self, now: Time) -> Option<String> {
        let left = self.until?.since(now).as_secs_f64();
        let losses = self.losses;
        Some(format!(
            "its connection was lost {losses} times shortly after each other: it gets nothing until it has stayed for {left:.0} s more"
        ))
    }
}
