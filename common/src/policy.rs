//! A cluster's policy: its queues, their weights and quotas, how priorities rise with waiting, and [`Rules`]. Data that
//! operators set live; both the client, from a file, and the scheduler, from the wire and its journal, go through [`ClusterPolicy::new`].
//!
//! Invariants: there is always the queue [`Name::default_queue`]; no policy starves a queue: each has a weight that counts
//! beside the others', and may hold something of what every task needs.

use crate::{
    fb,
    ids::{Name, NameError},
    job::JobSpec,
    limits::{
        AGEING_EVERY_MAX, AGEING_EVERY_MIN, PLACING_WEIGHT_MAX, PREEMPT_RATE_MAX, QUEUE_WEIGHT_MAX,
        QUEUE_WEIGHTS_APART_MAX, QUEUES_MAX, RESERVE_AGENTS_MAX, RESOURCES_MAX,
    },
    resources::Resources,
};
use std::{collections::BTreeMap, time::Duration};

mod rules;
pub use rules::{Placing, Preempt, Reserve, Rules};

/// A validated policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterPolicy {
    queues: BTreeMap<Name, QueueRule>,
    ageing: Option<Ageing>,
    rules: Rules,
}

/// What holds for a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueRule {
    /// Its share of the cluster, beside the other queues' weights.
    pub weight: u32,
    /// What its attempts may hold together.
    pub quota: Quota,
    /// The highest priority that its jobs may ask for.
    pub priority_max: i8,
}

/// What a queue's attempts may hold at most; `None` = no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Millicores.
    pub cpu: Option<u32>,
    /// MB.
    pub memory: Option<u32>,
    /// Count.
    pub gpu: Option<u32>,
    /// GB.
    pub storage: Option<u32>,
}

/// How priorities rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ageing {
    /// By one for each such time waited,
    pub every: Duration,
    /// by so much at most.
    pub most: u8,
}

/// Why a policy is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum PolicyError {
    #[error("queue `{name}`: {error}")]
    Name { name: String, error: NameError },
    #[error("queue `{queue}` stands there twice")]
    Twice { queue: Name },
    #[error("{found} queues are more than the limit of {QUEUES_MAX}")]
    TooMany { found: usize },
    #[error(
        "the weight of queue `{queue}` is {found}: expected 1 to {QUEUE_WEIGHT_MAX}; with 0 it would never be served"
    )]
    Weight { queue: Name, found: u32 },
    #[error(
        "queue `{queue}` would starve: its weight of {weight} is less than a {QUEUE_WEIGHTS_APART_MAX}th of `{other}`'s {most}; give it \
         {least} or more"
    )]
    Outweighed { queue: Name, weight: u32, other: Name, most: u32, least: u32 },
    #[error("queue `{queue}` would starve: its quota of {what} is 0, and its tasks could never hold any")]
    NoQuota { queue: Name, what: &'static str },
    #[error("the quota of {what} of queue `{queue}` is {found}: more than the largest amount, {max}")]
    QuotaTooMuch { queue: Name, what: &'static str, found: u32, max: u32 },
    #[error(
        "queue `{queue}` would starve: its priority_max is {found}, below the 0 that jobs have who ask for nothing, and without \
         [ageing] whoever has a higher priority always comes first; raise it to 0, or let priorities rise with waiting"
    )]
    Outranked { queue: Name, found: i8 },
    #[error("ageing every {found_ms} ms: expected a time of 10 s to a year")]
    AgeingEvery { found_ms: u64 },
    #[error("ageing by at most 0 would change nothing: expected 1 to 255, or no [ageing] at all")]
    AgeingMost,
    #[error(
        "[placing] has pack = {pack} and spread = {spread}: expected 0 to {PLACING_WEIGHT_MAX} each, and one of them above 0; \
         pack = 1 fills the fullest agent first, spread = 1 the emptiest"
    )]
    Placing { pack: u16, spread: u16 },
    #[error("[{rule}] after {found_ms} ms: expected a time of 100 ms to a day")]
    After { rule: &'static str, found_ms: u64 },
    #[error("[reserve] agents is {found}: expected 0 (nothing is reserved) to {RESERVE_AGENTS_MAX}")]
    ReserveAgents { found: u16 },
    #[error(
        "[preempt] {key} is {found}: expected 1 to {PREEMPT_RATE_MAX}; if nobody shall make way, say gap = 0 and nothing else"
    )]
    PreemptRate { key: &'static str, found: u32 },
}

/// Why a job may not enter the queue that it names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum QueueError {
    #[error("there is no queue `{found}`{}; the queues are {}", nearest.as_ref().map_or(String::new(), |name| format!(" (did you mean `{name}`?)")), known.join(", "))]
    Unknown { found: Name, nearest: Option<String>, known: Vec<String> },
    #[error("task `{task}` could never run: it needs {needs} of {what}, and the quota of queue `{queue}` is {quota}")]
    AboveQuota { task: Name, queue: Name, what: &'static str, needs: u32, quota: u32 },
    #[error("task `{task}` has the priority {found}: in queue `{queue}` it may be {max} at most")]
    PriorityTooHigh { task: Name, queue: Name, found: i8, max: i8 },
}

impl Default for QueueRule {
    fn default() -> QueueRule {
        QueueRule { weight: 1, quota: Quota::default(), priority_max: i8::MAX }
    }
}

impl Default for ClusterPolicy {
    /// One queue without limits.
    fn default() -> ClusterPolicy {
        let queues = BTreeMap::from([(Name::default_queue(), QueueRule::default())]);
        ClusterPolicy { queues, ageing: None, rules: Rules::default() }
    }
}

impl Quota {
    const UNLIMITED: u32 = u32::MAX;

    /// Whether nothing is limited.
    pub fn is_none(self) -> bool {
        self == Quota::default()
    }

    /// What there is a limit of: its name, the limit, and how much of it an amount has.
    pub fn limits(self, amount: Resources) -> impl Iterator<Item = (&'static str, u32, u32)> {
        let parts = [
            ("cpu", self.cpu, amount.cpu),
            ("memory", self.memory, amount.memory),
            ("gpu", self.gpu, amount.gpu),
            ("storage", self.storage, amount.storage),
        ];
        parts.into_iter().filter_map(|(what, limit, amount)| Some((what, limit?, amount)))
    }

    fn check(self, queue: &Name) -> Result<(), PolicyError> {
        for (what, found, max) in self.limits(RESOURCES_MAX) {
            if found > max {
                return Err(PolicyError::QuotaTooMuch { queue: queue.clone(), what, found, max });
            }
        }
        // Nobody needs a gpu or storage; whoever may have none of the others waits for ever.
        let starving = [("cpu", self.cpu), ("memory", self.memory)].into_iter().find(|(_, limit)| *limit == Some(0));
        starving.map_or(Ok(()), |(what, _)| Err(PolicyError::NoQuota { queue: queue.clone(), what }))
    }

    fn from_wire(wire: Option<fb::Quota<'_>>) -> Quota {
        let limit = |limit: u32| (limit != Quota::UNLIMITED).then_some(limit);
        wire.map_or(Quota::default(), |wire| Quota {
            cpu: limit(wire.cpu()),
            memory: limit(wire.memory()),
            gpu: limit(wire.gpu()),
            storage: limit(wire.storage()),
        })
    }

    fn to_wire(self) -> Option<Box<fb::QuotaT>> {
        let limit = |limit: Option<u32>| limit.unwrap_or(Quota::UNLIMITED);
        (!self.is_none()).then(|| {
            Box::new(fb::QuotaT {
                cpu: limit(self.cpu),
                memory: limit(self.memory),
                gpu: limit(self.gpu),
                storage: limit(self.storage),
            })
        })
    }
}

impl QueueRule {
    /// As the wire's owned table.
    pub fn to_wire(self, name: &Name) -> fb::QueueRuleT {
        let QueueRule { weight, quota, priority_max } = self;
        fb::QueueRuleT { name: Some(name.to_string()), weight, quota: quota.to_wire(), priority_max }
    }
}

impl ClusterPolicy {
    /// Checks a policy; the default queue is added if it is not there.
    pub fn new(
        queues: impl IntoIterator<Item = (Name, QueueRule)>,
        ageing: Option<Ageing>,
    ) -> Result<ClusterPolicy, PolicyError> {
        let mut checked = BTreeMap::new();
        for (name, rule) in queues {
            if checked.insert(name.clone(), rule).is_some() {
                return Err(PolicyError::Twice { queue: name });
            }
            if checked.len() > QUEUES_MAX {
                return Err(PolicyError::TooMany { found: checked.len() });
            }
        }
        checked.entry(Name::default_queue()).or_default();
        let policy = ClusterPolicy { queues: checked, ageing, rules: Rules::default() };
        policy.check()?;
        Ok(policy)
    }

    /// The same policy with other rules, if they are sound.
    pub fn with_rules(self, rules: Rules) -> Result<ClusterPolicy, PolicyError> {
        rules.check()?;
        Ok(ClusterPolicy { rules, ..self })
    }

    fn check(&self) -> Result<(), PolicyError> {
        if self.queues.len() > QUEUES_MAX {
            return Err(PolicyError::TooMany { found: self.queues.len() });
        }
        if let Some(Ageing { every, most }) = self.ageing {
            if !(AGEING_EVERY_MIN..=AGEING_EVERY_MAX).contains(&every) {
                return Err(PolicyError::AgeingEvery { found_ms: every.as_millis().try_into().unwrap_or(u64::MAX) });
            }
            if most == 0 {
                return Err(PolicyError::AgeingMost);
            }
        }
        let heaviest = self.queues.iter().max_by_key(|(_, rule)| rule.weight);
        for (name, rule) in &self.queues {
            let queue = || name.clone();
            if rule.weight == 0 || rule.weight > QUEUE_WEIGHT_MAX {
                return Err(PolicyError::Weight { queue: queue(), found: rule.weight });
            }
            if let Some((other, most)) = heaviest.map(|(other, rule)| (other, rule.weight))
                && u64::from(rule.weight) * u64::from(QUEUE_WEIGHTS_APART_MAX) < u64::from(most)
            {
                let least = most.div_ceil(QUEUE_WEIGHTS_APART_MAX);
                let (weight, other) = (rule.weight, other.clone());
                return Err(PolicyError::Outweighed { queue: queue(), weight, other, most, least });
            }
            rule.quota.check(name)?;
            if rule.priority_max < 0 && self.ageing.is_none() {
                return Err(PolicyError::Outranked { queue: queue(), found: rule.priority_max });
            }
        }
        Ok(())
    }

    /// The queues, in the order of their names.
    pub fn queues(&self) -> impl Iterator<Item = (&Name, &QueueRule)> {
        self.queues.iter()
    }

    /// What holds for a queue; `None` if there is none of that name.
    pub fn queue(&self, name: &Name) -> Option<&QueueRule> {
        self.queues.get(name)
    }

    /// How priorities rise, if they do.
    pub fn ageing(&self) -> Option<Ageing> {
        self.ageing
    }

    /// What it says of placement.
    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// Refuses a job that names no queue that there is, or could never run in its queue.
    pub fn check_job(&self, job: &JobSpec) -> Result<(), QueueError> {
        let queue = &job.queue;
        let Some(rule) = self.queue(queue) else {
            let known: Vec<String> = self.queues.keys().map(Name::to_string).collect();
            let names: Vec<&str> = known.iter().map(String::as_str).collect();
            let nearest = crate::nearest::nearest(queue.as_str(), &names).map(str::to_owned);
            return Err(QueueError::Unknown { found: queue.clone(), nearest, known });
        };
        for task in &job.tasks {
            let name = || task.name.clone();
            if let Some((what, quota, needs)) =
                rule.quota.limits(task.at_once()).find(|(_, limit, needs)| needs > limit)
            {
                return Err(QueueError::AboveQuota { task: name(), queue: queue.clone(), what, needs, quota });
            }
            if task.priority > rule.priority_max {
                let (found, max) = (task.priority, rule.priority_max);
                return Err(QueueError::PriorityTooHigh { task: name(), queue: queue.clone(), found, max });
            }
        }
        Ok(())
    }

    /// Reads and checks the wire's form.
    pub fn from_wire(wire: fb::ClusterPolicy<'_>) -> Result<ClusterPolicy, PolicyError> {
        let queue = |rule: fb::QueueRule<'_>| {
            let text = rule.name().unwrap_or_default();
            let cut = |error| PolicyError::Name { name: text.chars().take(80).collect(), error };
            let name = Name::new(text).map_err(cut)?;
            let (weight, priority_max) = (rule.weight(), rule.priority_max());
            Ok((name, QueueRule { weight, quota: Quota::from_wire(rule.quota()), priority_max }))
        };
        let listed = wire.queues().map_or(0, |queues| queues.len());
        if listed > QUEUES_MAX {
            return Err(PolicyError::TooMany { found: listed });
        }
        let queues = wire.queues().into_iter().flatten().map(queue).collect::<Result<Vec<_>, PolicyError>>()?;
        let every = Duration::from_millis(wire.ageing_every_ms());
        let ageing = (!every.is_zero()).then(|| Ageing { every, most: wire.ageing_most() });
        ClusterPolicy::new(queues, ageing)?.with_rules(Rules::from_wire(&wire))
    }

    /// As the wire's owned table.
    pub fn to_wire(&self) -> fb::ClusterPolicyT {
        let ageing_every_ms = self.ageing.map_or(0, |ageing| ageing.every.as_millis().try_into().unwrap_or(u64::MAX));
        let mut wire = fb::ClusterPolicyT {
            queues: Some(self.queues.iter().map(|(name, rule)| rule.to_wire(name)).collect()),
            ageing_every_ms,
            ageing_most: self.ageing.map_or(u8::MAX, |ageing| ageing.most),
            ..fb::ClusterPolicyT::default()
        };
        self.rules.write(&mut wire);
        wire
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::job::{TaskSpec, Terms};

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn of(rules: &[(&str, QueueRule)]) -> Result<ClusterPolicy, PolicyError> {
        ClusterPolicy::new(rules.iter().map(|(text, rule)| (name(text), *rule)), None)
    }

    fn weighing(weight: u32) -> QueueRule {
        QueueRule { weight, ..QueueRule::default() }
    }

    fn limited(quota: Quota) -> QueueRule {
        QueueRule { quota, ..QueueRule::default() }
    }

    #[test]
    fn what_would_starve_a_queue_is_refused_with_the_reason() {
        let words = |policy: Result<ClusterPolicy, PolicyError>| policy.unwrap_err().to_string();
        assert!(words(of(&[("a", weighing(0))])).contains("expected 1 to"));
        let apart = of(&[("a", weighing(2_000)), ("b", weighing(2))]);
        assert!(words(apart).contains("`default` would starve") && of(&[("a", weighing(1_000))]).is_ok());
        let no_cpu = limited(Quota { cpu: Some(0), ..Quota::default() });
        assert!(words(of(&[("a", no_cpu)])).contains("its quota of cpu is 0"));
        let no_gpu = limited(Quota { gpu: Some(0), ..Quota::default() });
        assert!(of(&[("a", no_gpu)]).is_ok(), "whoever needs none runs");
        let much = limited(Quota { memory: Some(u32::MAX - 1), ..Quota::default() });
        assert!(words(of(&[("a", much)])).contains("more than the largest amount"));
        let low = QueueRule { priority_max: -1, ..QueueRule::default() };
        assert!(words(of(&[("a", low)])).contains("[ageing]"));
        let ageing = Ageing { every: Duration::from_secs(60), most: 255 };
        assert!(ClusterPolicy::new([(name("a"), low)], Some(ageing)).is_ok());
        for wrong in [Ageing { every: Duration::from_millis(9_999), ..ageing }, Ageing { most: 0, ..ageing }] {
            assert!(ClusterPolicy::new([], Some(wrong)).is_err());
        }
    }

    #[test]
    fn rules_that_mean_nothing_are_refused() {
        let words = |rules| ClusterPolicy::default().with_rules(rules).unwrap_err().to_string();
        let placing = |pack, spread| Rules { placing: Some(Placing { pack, spread }), ..Rules::default() };
        assert!(words(placing(0, 0)).contains("one of them above 0"));
        assert!(words(placing(1_001, 0)).contains("pack = 1001"));
        let reserve = |ms, agents| Rules {
            reserve: Some(Reserve { after: Duration::from_millis(ms), agents }),
            ..Rules::default()
        };
        assert!(words(reserve(99, 1)).contains("[reserve] after 99 ms"));
        assert!(words(reserve(100, 1_025)).contains("agents is 1025"));
        let preempt = |gap, ms, per_minute, per_task| Rules {
            preempt: Some(Preempt { gap, after: Duration::from_millis(ms), per_minute, per_task }),
            ..Rules::default()
        };
        assert!(words(preempt(1, 86_400_001, 1, 1)).contains("[preempt] after"));
        assert!(words(preempt(1, 1_000, 0, 1)).contains("per_minute is 0"));
        assert!(words(preempt(1, 1_000, 1, 1_000_001)).contains("per_task is 1000001"));
        for sound in [placing(0, 1), placing(1_000, 1_000), reserve(100, 0), preempt(0, 1_000, 0, 0)] {
            assert!(ClusterPolicy::default().with_rules(sound).is_ok());
        }
    }

    #[test]
    fn there_are_so_many_queues_and_the_default_one_among_them() {
        assert!(of(&[]).unwrap() == ClusterPolicy::default());
        assert!(matches!(of(&[("a", weighing(1)), ("a", weighing(1))]), Err(PolicyError::Twice { .. })));
        let many =
            |count| ClusterPolicy::new((0..count).map(|number| (name(&format!("q{number}")), weighing(1))), None);
        assert_eq!(many(QUEUES_MAX - 1).unwrap().queues().count(), QUEUES_MAX);
        assert!(matches!(many(QUEUES_MAX), Err(PolicyError::TooMany { .. })));
    }

    #[test]
    fn a_job_that_could_never_run_in_its_queue_is_refused() {
        let research = QueueRule {
            quota: Quota { cpu: Some(4_000), gpu: Some(0), ..Quota::default() },
            priority_max: 10,
            ..QueueRule::default()
        };
        let policy = of(&[("research", research)]).unwrap();
        let check = |queue: &str, cpu: u32, gpu: u32, priority: i8| {
            let resources = Resources { cpu, gpu, ..Resources::ZERO };
            let task = TaskSpec { command: "x".into(), resources, priority, ..TaskSpec::default() };
            let job = JobSpec::new(name("j"), vec![task], Terms::default()).unwrap().in_queue(name(queue));
            policy.check_job(&job).map_err(|error| error.to_string())
        };
        assert_eq!(check("research", 4_000, 0, 10), Ok(()));
        assert_eq!(check("default", 40_000, 8, 127), Ok(()));
        assert!(check("reserch", 1, 0, 0).unwrap_err().contains("did you mean `research`?"));
        assert!(check("zzz", 1, 0, 0).unwrap_err().contains("the queues are default, research"));
        assert!(check("research", 4_001, 0, 0).unwrap_err().contains("needs 4001 of cpu"));
        assert!(check("research", 1, 1, 0).unwrap_err().contains("needs 1 of gpu"));
        assert!(check("research", 1, 0, 11).unwrap_err().contains("may be 10 at most"));
    }

    #[test]
    fn the_wire_gives_back_what_it_was_given() {
        let rule = QueueRule {
            weight: 3,
            quota: Quota { cpu: Some(1), storage: Some(7), ..Quota::default() },
            priority_max: -4,
        };
        let ageing = Some(Ageing { every: Duration::from_secs(600), most: 20 });
        let rules = Rules {
            placing: Some(Placing { pack: 2, spread: 7 }),
            reserve: Some(Reserve { after: Duration::from_millis(1_500), agents: 3 }),
            preempt: Some(Preempt { gap: 4, after: Duration::from_secs(9), per_minute: 8, per_task: 5 }),
        };
        let with_all = ClusterPolicy::new([(name("a"), rule)], ageing).unwrap().with_rules(rules).unwrap();
        for policy in [ClusterPolicy::default(), with_all] {
            let mut builder = flatbuffers::FlatBufferBuilder::new();
            let root = policy.to_wire().pack(&mut builder);
            builder.finish(root, None);
            let wire = flatbuffers::root::<fb::ClusterPolicy<'_>>(builder.finished_data()).unwrap();
            assert_eq!(ClusterPolicy::from_wire(wire).unwrap(), policy);
        }
    }
}
