//! What a policy says of placement beside its queues: how agents are filled, what is kept free for whoever has waited for
//! long, and who makes way. What it does not say is as the scheduler has it by itself.

use super::PolicyError;
use crate::{
    fb,
    limits::{PLACING_WEIGHT_MAX, PREEMPT_RATE_MAX, RESERVE_AGENTS_MAX, RULE_AFTER_MAX, RULE_AFTER_MIN},
};
use std::time::Duration;

/// The rules of a policy; `None` = not said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// How agents are filled.
    pub placing: Option<Placing>,
    /// What is kept free for whoever has waited for long.
    pub reserve: Option<Reserve>,
    /// Who makes way.
    pub preempt: Option<Preempt>,
}

/// How agents are filled: whoever's weighed sum is the least comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placing {
    /// What counts against an agent for what it has left: fullest first.
    pub pack: u16,
    /// What counts against it for the share of it that is in use: emptiest first.
    pub spread: u16,
}

/// What is kept free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserve {
    /// After so long of waiting an agent is reserved.
    pub after: Duration,
    /// So many at a time; 0 = never any.
    pub agents: u16,
}

/// Who makes way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preempt {
    /// What is so much more urgent than others makes them give way where it fits nowhere; 0 = never.
    pub gap: u8,
    /// After so long of waiting.
    pub after: Duration,
    /// So many attempts give way in a minute, in the whole cluster,
    pub per_minute: u32,
    /// and so many of one task.
    pub per_task: u32,
}

impl Default for Placing {
    /// Best fit.
    fn default() -> Placing {
        Placing { pack: 1, spread: 0 }
    }
}

impl Default for Reserve {
    fn default() -> Reserve {
        Reserve { after: Duration::from_secs(30), agents: 16 }
    }
}

impl Default for Preempt {
    fn default() -> Preempt {
        Preempt { gap: 10, after: Duration::from_secs(1), per_minute: 60, per_task: 3 }
    }
}

impl Rules {
    /// Refuses what means nothing, or would starve somebody.
    pub(super) fn check(&self) -> Result<(), PolicyError> {
        if let Some(Placing { pack, spread }) = self.placing
            && (pack.max(spread) > PLACING_WEIGHT_MAX || pack + spread == 0)
        {
            return Err(PolicyError::Placing { pack, spread });
        }
        let within = |rule, after: Duration| match (RULE_AFTER_MIN..=RULE_AFTER_MAX).contains(&after) {
            true => Ok(()),
            false => Err(PolicyError::After { rule, found_ms: as_ms(after) }),
        };
        if let Some(Reserve { after, agents }) = self.reserve {
            within("reserve", after)?;
            if agents > RESERVE_AGENTS_MAX {
                return Err(PolicyError::ReserveAgents { found: agents });
            }
        }
        if let Some(Preempt { gap, after, per_minute, per_task }) = self.preempt {
            within("preempt", after)?;
            for (key, found) in [("per_minute", per_minute), ("per_task", per_task)] {
                if found > PREEMPT_RATE_MAX || (found == 0 && gap > 0) {
                    return Err(PolicyError::PreemptRate { key, found });
                }
            }
        }
        Ok(())
    }

    pub(super) fn from_wire(wire: &fb::ClusterPolicy<'_>) -> Rules {
        Rules {
            placing: wire.placing().map(|rule| Placing { pack: rule.packing(), spread: rule.spreading() }),
            reserve: wire
                .reserve()
                .map(|rule| Reserve { after: Duration::from_millis(rule.after_ms()), agents: rule.agents() }),
            preempt: wire.preempt().map(|rule| Preempt {
                gap: rule.gap(),
                after: Duration::from_millis(rule.after_ms()),
                per_minute: rule.per_minute(),
                per_task: rule.per_task(),
            }),
        }
    }

    pub(super) fn write(self, wire: &mut fb::ClusterPolicyT) {
        let Rules { placing, reserve, preempt } = self;
        wire.placing =
            placing.map(|Placing { pack, spread }| Box::new(fb::PlacingRuleT { packing: pack, spreading: spread }));
        let reserve_rule = |Reserve { after, agents }| fb::ReserveRuleT { after_ms: as_ms(after), agents };
        wire.reserve = reserve.map(|rule| Box::new(reserve_rule(rule)));
        let preempt_rule = |Preempt { gap, after, per_minute, per_task }| fb::PreemptRuleT {
            gap,
            after_ms: as_ms(after),
            per_minute,
            per_task,
        };
        wire.preempt = preempt.map(|rule| Box::new(preempt_rule(rule)));
    }
}

fn as_ms(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
