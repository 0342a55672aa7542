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
    policy::{Ageing, ClusterPolicy, PolicyError, QueueRule, Quota},
    resources::{parse_memory, parse_storage},
};
use std::{fmt::Write as _, ops::Range, path::Path, time::Duration};
use toml::de::DeValue;

const POLICY_KEYS: &[&str] = &["queues", "ageing"];
const QUEUE_KEYS: &[&str] = &["weight", "quota", "priority_max"];
const QUOTA_KEYS: &[&str] = &["cpu", "memory", "gpu", "storage"];
const AGEING_KEYS: &[&str] = &["every", "most"];

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
        let _ = writeln!(text, "[ageing]\nevery = \"{}s\"\nmost = {most}", every.as_secs());
    }
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
    ClusterPolicy::new(queues, ageing).map_err(|error| {
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
                    priority_max = -3\n[queues.default]\n[ageing]\nevery = \"10m\"\n";
        let policy = parse(Path::new("policy.toml"), text).unwrap();
        let research = policy.queue(&Name::new("research").unwrap()).unwrap();
        assert_eq!((research.weight, research.quota.cpu, research.priority_max), (3, Some(64_000), -3));
        assert_eq!(policy.ageing(), Some(Ageing { every: Duration::from_secs(600), most: 255 }));
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
        ] {
            let found = refused(text);
            assert!(found.contains(place) && found.contains(words), "{text}: {found}");
        }
    }
}
