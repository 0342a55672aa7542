//! Policy files: TOML in, a validated [`ClusterPolicy`] out (docs/operations.md#policy is the reference for people). As
//! strict as job files, and with the same words for what is wrong.

use crate::jobfile::{
    JobFileError, Mistake, MistakeKind, document,
    mistake::Fault,
    read_text,
    section::{Field, Section},
};
use fleetwire_common::{
    ids::Name,
    policy::{Ageing, ClusterPolicy, Placing, PolicyError, Preempt, QueueRule, Quota, Reserve, Rules},
    resources::{parse_memory, parse_storage},
};
use std::{fmt::Write as _, ops::Range, path::Path, time::Duration};
use toml::de::DeValue;

const POLICY_KEYS: &[&str] = &["queues", "ageing", "placing", "reserve", "preempt"];
const QUEUE_KEYS: &[&str] = &["weight", "quota", "priority_max"];
const QUOTA_KEYS: &[&str] = &["cpu", "memory", "gpu", "storage"];
const AGEING_KEYS: &[&str] = &["every", "most"];
const PLACING_KEYS: &[&str] = &["pack", "spread"];
const RESERVE_KEYS: &[&str] = &["after", "agents"];
const PREEMPT_KEYS: &[&str] = &["gap", "after", "per_minute", "per_task"];

/// Reads and checks a policy file.
pub fn load(path: &Path) -> Result<ClusterPolicy, JobFileError> {
    parse(path, &read_text(path)?)
}

/// Checks a policy file's text. `path` is what errors call it.
pub fn parse(path: &Path, text: &str) -> Result<ClusterPolicy, JobFileError> {
    policy(text).map_err(|fault| JobFileError::Mistake(Box::new(Mistake::new(path, text, fault))))
}

/// The file that says what a policy does: what `policy set` reads.
pub fn to_text(policy: &ClusterPolicy) -> String {
    let mut text = String::new();
    for (name, rule) in policy.queues() {
        let QueueRule { weight, quota, priority_max } = rule;
        let _ = writeln!(text, "[queues.{name}]\nweight = {weight}");
        let limits = [
            quota.cpu.map(|cpu| format!("cpu = \"{cpu}m\"")),
            quota.memory.map(|memory| format!("memory = \"{memory}MB\"")),
            quota.gpu.map(|gpu| format!("gpu = {gpu}")),
            quota.storage.map(|storage| format!("storage = \"{storage}GB\"")),
        ];
        let limits: Vec<String> = limits.into_iter().flatten().collect();
        if !limits.is_empty() {
            let _ = writeln!(text, "quota = {{ {} }}", limits.join(", "));
        }
        if *priority_max < i8::MAX {
            let _ = writeln!(text, "priority_max = {priority_max}");
        }
        text.push('\n');
    }
    if let Some(Ageing { every, most }) = policy.ageing() {
        let _ = writeln!(text, "[ageing]\nevery = \"{}s\"\nmost = {most}\n", every.as_secs());
    }
    let Rules { placing, reserve, preempt } = policy.rules();
    if let Some(Placing { pack, spread }) = placing {
        let _ = writeln!(text, "[placing]\npack = {pack}\nspread = {spread}\n");
    }
    if let Some(Reserve { after, agents }) = reserve {
        let _ = writeln!(text, "[reserve]\nafter = \"{}ms\"\nagents = {agents}\n", after.as_millis());
    }
    if let Some(Preempt { gap, after, per_minute, per_task }) = preempt {
        let after = after.as_millis();
        let _ = writeln!(
            text,
            "[preempt]\ngap = {gap}\nafter = \"{after}ms\"\nper_minute = {per_minute}\nper_task = {per_task}\n"
        );
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn policy(text: &str) -> Result<ClusterPolicy, Fault> {
    let document = document(text)?;
    let start = 0..text.lines().next().map_or(0, str::len);
    let section = Section::open("the policy", POLICY_KEYS, document.get_ref(), start.clone())?;
    let mut queues: Vec<(Name, QueueRule)> = Vec::new();
    let mut places: Vec<(Name, Range<usize>)> = Vec::new();
    if let Some(field) = section.field("queues")? {
        for (text, field) in field.pairs("a table of queues, each under a heading such as [queues.research]")? {
            let name = Name::new(text).map_err(|error| field.fault(MistakeKind::Name(error)))?;
            places.push((name.clone(), field.value.span()));
            queues.push((name, queue(&field)?));
        }
    }
    let ageing = section.field("ageing")?.map(|field| ageing(&field)).transpose()?;
    let rules = Rules {
        placing: section.field("placing")?.map(|field| placing(&field)).transpose()?,
        reserve: section.field("reserve")?.map(|field| reserve(&field)).transpose()?,
        preempt: section.field("preempt")?.map(|field| preempt(&field)).transpose()?,
    };
    ClusterPolicy::new(queues, ageing).and_then(|policy| policy.with_rules(rules)).map_err(|error| {
        let of = |queue: &Name| places.iter().find(|(name, _)| name == queue).map(|(_, place)| place.clone());
        let place = match &error {
            PolicyError::Twice { queue }
            | PolicyError::Weight { queue, .. }
            | PolicyError::NoQuota { queue, .. }
            | PolicyError::QuotaTooMuch { queue, .. }
            | PolicyError::Outranked { queue, .. } => of(queue),
            // The default queue may be outweighed without standing there.
            PolicyError::Outweighed { queue, other, .. } => of(queue).or_else(|| of(other)),
            PolicyError::AgeingEvery { .. } | PolicyError::AgeingMost => Some(section.span_of("ageing")),
            PolicyError::Placing { .. } => Some(section.span_of("placing")),
            PolicyError::ReserveAgents { .. } => Some(section.span_of("reserve")),
            PolicyError::PreemptRate { .. } => Some(section.span_of("preempt")),
            PolicyError::After { rule, .. } => Some(section.span_of(rule)),
            PolicyError::Name { .. } | PolicyError::TooMany { .. } => None,
        };
        Fault::new(place.unwrap_or(start), MistakeKind::Policy(error))
    })
}

/// A table under a key.
fn table<'t>(field: &Field<'t>, what: &'static str, known: &'static [&'static str]) -> Result<Section<'t>, Fault> {
    let DeValue::Table(table) = field.value.get_ref() else {
        return Err(crate::jobfile::section::wrong_type(field.key, "a table", field.value));
    };
    Section::open(what, known, table, field.value.span())
}

fn queue(field: &Field<'_>) -> Result<QueueRule, Fault> {
    let section = table(field, "a queue", QUEUE_KEYS)?;
    let mut rule = QueueRule::default();
    if let Some(field) = section.field("weight")? {
        rule.weight = u32::try_from(field.integer(0..=i64::from(u32::MAX))?).unwrap_or(u32::MAX);
    }
    if let Some(field) = section.field("priority_max")? {
        rule.priority_max = i8::try_from(field.integer(i64::from(i8::MIN)..=i64::from(i8::MAX))?).unwrap_or(i8::MAX);
    }
    if let Some(field) = section.field("quota")? {
        rule.quota = quota(&field)?;
    }
    Ok(rule)
}

fn quota(field: &Field<'_>) -> Result<Quota, Fault> {
    let section = table(field, "a quota", QUOTA_KEYS)?;
    let gpu = |field: Field<'_>| Ok(u32::try_from(field.integer(0..=i64::from(u32::MAX - 1))?).unwrap_or(u32::MAX));
    let memory = |field: Field<'_>| field.sized(parse_memory, "an amount of memory such as \"64GB\"");
    let storage = |field: Field<'_>| field.sized(parse_storage, "an amount of storage such as \"10TB\"");
    Ok(Quota {
        cpu: section.field("cpu")?.map(|field| field.cpu()).transpose()?,
        memory: section.field("memory")?.map(memory).transpose()?,
        gpu: section.field("gpu")?.map(gpu).transpose()?,
        storage: section.field("storage")?.map(storage).transpose()?,
    })
}

fn ageing(field: &Field<'_>) -> Result<Ageing, Fault> {
    let section = table(field, "the ageing", AGEING_KEYS)?;
    let every = section.field("every")?.ok_or_else(|| section.missing("every"))?.seconds()?;
    let most = section.field("most")?.map_or(Ok(i64::from(u8::MAX)), |field| field.integer(0..=255))?;
    Ok(Ageing { every: Duration::from_secs(every), most: u8::try_from(most).unwrap_or(u8::MAX) })
}

fn placing(field: &Field<'_>) -> Result<Placing, Fault> {
    let section = table(field, "the placing", PLACING_KEYS)?;
    Ok(Placing { pack: number(&section, "pack", 0)?, spread: number(&section, "spread", 0)? })
}

fn reserve(field: &Field<'_>) -> Result<Reserve, Fault> {
    let section = table(field, "the reserve", RESERVE_KEYS)?;
    let by_itself = Reserve::default();
    Ok(Reserve { after: after(&section, by_itself.after)?, agents: number(&section, "agents", by_itself.agents)? })
}

fn preempt(field: &Field<'_>) -> Result<Preempt, Fault> {
    let section = table(field, "the preempt", PREEMPT_KEYS)?;
    let by_itself = Preempt::default();
    Ok(Preempt {
        gap: number(&section, "gap", by_itself.gap)?,
        after: after(&section, by_itself.after)?,
        per_minute: number(&section, "per_minute", by_itself.per_minute)?,
        per_task: number(&section, "per_task", by_itself.per_task)?,
    })
}

fn after(section: &Section<'_>, unless_said: Duration) -> Result<Duration, Fault> {
    let said = section.field("after")?.map(|field| field.milliseconds()).transpose()?;
    Ok(said.map_or(unless_said, |ms| Duration::from_millis(u64::from(ms))))
}

/// A number of the width that its rule keeps it in.
fn number<N: TryFrom<u32> + Into<u32>>(section: &Section<'_>, key: &str, unless_said: N) -> Result<N, Fault> {
    let Some(field) = section.field(key)? else { return Ok(unless_said) };
    let most = (1_i64 << (8 * size_of::<N>())) - 1;
    let said = u32::try_from(field.integer(0..=most)?).unwrap_or_default();
    Ok(N::try_from(said).unwrap_or(unless_said))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        parse(Path::new("policy.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let text = "[queues.research]\nweight = 3\nquota = { cpu = 64, memory = \"256GB\", gpu = 0, storage = \"10TB\" }\n\
                    priority_max = -3\n[queues.default]\n[ageing]\nevery = \"10m\"\n[placing]\npack = 1\nspread = 3\n\
                    [reserve]\nafter = \"2s\"\n[preempt]\ngap = 5\nper_minute = 100\n";
        let policy = parse(Path::new("policy.toml"), text).unwrap();
        let research = policy.queue(&Name::new("research").unwrap()).unwrap();
        assert_eq!((research.weight, research.quota.cpu, research.priority_max), (3, Some(64_000), -3));
        assert_eq!(policy.ageing(), Some(Ageing { every: Duration::from_secs(600), most: 255 }));
        let rules = Rules {
            placing: Some(Placing { pack: 1, spread: 3 }),
            reserve: Some(Reserve { after: Duration::from_secs(2), ..Reserve::default() }),
            preempt: Some(Preempt { gap: 5, per_minute: 100, ..Preempt::default() }),
        };
        assert_eq!(policy.rules(), rules);
        assert_eq!(parse(Path::new("again.toml"), &to_text(&policy)).unwrap(), policy);
        assert_eq!(parse(Path::new("empty.toml"), "").unwrap(), ClusterPolicy::default());
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/policies/queues.toml");
        assert_eq!(load(&example).unwrap().queues().count(), 3);
    }

    #[test]
    fn what_is_wrong_is_shown_where_it_is() {
        for (text, place, words) in [
            ("[queues.a]\nwieght = 1", "policy.toml:2:1", "did you mean `weight`?"),
            ("[queue.a]\nweight = 1", "policy.toml:1:2", "did you mean `queues`?"),
            ("[queues.a]\nweight = 0", "policy.toml:1:1", "expected 1 to 1000000"),
            ("[queues.a]\nweight = \"much\"", "policy.toml:2:10", "a whole number"),
            ("[queues.a]\nquota = { cpu = 0 }", "policy.toml:1:1", "would starve"),
            ("[queues.a]\nquota = { memory = 64 }", "policy.toml:2:20", "expected a number with a unit"),
            ("[queues.a]\nweight = 5000", "policy.toml:1:1", "`default` would starve"),
            ("[queues.a]\npriority_max = -1", "policy.toml:1:1", "[ageing]"),
            ("[ageing]\nevery = \"1s\"", "policy.toml:1:1", "10 s to a year"),
            ("[ageing]\nmost = 3", "policy.toml:1:1", "has no `every`"),
            ("[queues.\"a b\"]", "policy.toml:1:1", "a b"),
            ("[placing]\npacks = 1", "policy.toml:2:1", "did you mean `pack`?"),
            ("[placing]", "policy.toml:1:1", "one of them above 0"),
            ("[placing]\nspread = 1001", "policy.toml:1:1", "0 to 1000"),
            ("[reserve]\nafter = \"25h\"", "policy.toml:1:1", "[reserve] after 90000000 ms"),
            ("[reserve]\nagents = 70000", "policy.toml:2:10", "65535"),
            ("[preempt]\nafter = \"1ms\"", "policy.toml:1:1", "[preempt] after 1 ms"),
            ("[preempt]\nper_task = 0", "policy.toml:1:1", "gap = 0"),
            ("[preempt]\ngap = 256", "policy.toml:2:7", "255"),
        ] {
            let found = refused(text);
            assert!(found.contains(place) && found.contains(words), "{text}: {found}");
        }
    }
}
