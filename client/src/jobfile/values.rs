//! The values that people write in job files and on the command line: durations, kinds of agents,
//! constraints, parameters. One reading of each, used by both.

use super::section::whole;
use fleetwire_common::{
    constraint::OPERATORS,
    fb,
    ids::Name,
    job::Constraint,
    resources::{UnitError, parse_cpu},
};
use std::{path::Path, time::Duration};
use time::{Date, Month, PrimitiveDateTime, Time, UtcOffset};
use toml::{
    de::DeValue,
    value::{Datetime, Offset},
};

/// The kinds of agents by their names, `any` first.
pub const KIND_NAMES: &[&str] = &["any", "trainer", "inferencer", "crawler", "labeller", "rater"];
/// What [`KIND_NAMES`] stand for.
pub const KINDS: [Option<fb::AgentType>; 6] = [
    None,
    Some(fb::AgentType::Trainer),
    Some(fb::AgentType::Inferencer),
    Some(fb::AgentType::Crawler),
    Some(fb::AgentType::Labeller),
    Some(fb::AgentType::Rater),
];
pub(super) const EXECUTOR_NAMES: &[&str] = &["process", "noop"];
pub(super) const EXECUTORS: [fb::Executor; 2] = [fb::Executor::Process, fb::Executor::Noop];
pub(super) const STORAGE_NAMES: &[&str] = &["local", "s3", "gcs", "azure", "http", "ipfs"];
pub(super) const STORAGES: [fb::StorageType; 6] = [
    fb::StorageType::Local,
    fb::StorageType::S3,
    fb::StorageType::Gcs,
    fb::StorageType::Azure,
    fb::StorageType::Http,
    fb::StorageType::Ipfs,
];

/// The kind of that name; `Some(None)` is `any`.
pub fn kind(name: &str) -> Option<Option<fb::AgentType>> {
    let place = KIND_NAMES.iter().position(|known| *known == name)?;
    KINDS.get(place).copied()
}

/// The name of a kind.
pub fn kind_name(kind: Option<fb::AgentType>) -> &'static str {
    let place = KINDS.iter().position(|known| *known == kind);
    place.and_then(|place| KIND_NAMES.get(place).copied()).unwrap_or("unknown")
}

/// A duration such as `500ms`, `30s`, `5m`, `2h`, `7d` or `1h30m`: whole numbers, each with its unit,
/// from the largest unit to the smallest.
pub fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let mut rest = text;
    let mut total_ms: u64 = 0;
    let mut units = UNITS.iter();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let (_, scale) = units.find(|(name, _)| *name == unit)?;
        total_ms = total_ms.checked_add(number.parse::<u64>().ok()?.checked_mul(*scale)?)?;
        rest = tail;
    }
    Some(Duration::from_millis(total_ms))
}

/// A moment with an offset as Unix ms; `None` if it has none, or lies before 1970.
pub(super) fn moment_ms(moment: &Datetime) -> Option<u64> {
    let (date, clock, offset) = (moment.date?, moment.time?, moment.offset?);
    let minutes = match offset {
        Offset::Z => 0,
        Offset::Custom { minutes } => i32::from(minutes),
    };
    let date = Date::from_calendar_date(date.year.into(), Month::try_from(date.month).ok()?, date.day).ok()?;
    let clock = Time::from_hms_nano(
        clock.hour,
        clock.minute,
        clock.second.unwrap_or_default(),
        clock.nanosecond.unwrap_or_default(),
    );
    let offset = UtcOffset::from_whole_seconds(60 * minutes).ok()?;
    let nanoseconds = PrimitiveDateTime::new(date, clock.ok()?).assume_offset(offset).unix_timestamp_nanos();
    u64::try_from(nanoseconds / 1_000_000).ok()
}

/// A condition on labels, such as `zone = eu`, `zone in [eu, us]`, `driver >= 535.2`, `gpu-model` or `!old`.
pub fn constraint(text: &str) -> Option<Constraint> {
    let text = text.trim();
    let name = |label: &str| Name::new(label.trim()).ok();
    if let Some(label) = text.strip_prefix('!').filter(|label| !label.contains('=')) {
        return Some(Constraint::new(name(label)?, fb::ConstraintOp::NotExists, ""));
    }
    let (label, rest) = text.split_at(text.find([' ', '\t', '!', '=', '<', '>']).unwrap_or(text.len()));
    let (label, rest) = (name(label)?, rest.trim_start());
    if rest.is_empty() {
        return Some(Constraint::new(label, fb::ConstraintOp::Exists, ""));
    }
    let (op, value) = OPERATORS.iter().find_map(|(operator, op)| Some((*op, rest.strip_prefix(operator)?)))?;
    match op {
        fb::ConstraintOp::In => {
            let listed = value.trim_start().strip_prefix('[')?.strip_suffix(']')?.trim();
            let values = listed.split(',').map(|value| value.trim().to_owned()).collect::<Vec<_>>();
            values.iter().all(|value| !value.is_empty()).then(|| Constraint::one_of(label, values))
        }
        // A word stands apart from what it is about.
        fb::ConstraintOp::Matches => {
            let pattern = value.strip_prefix([' ', '\t'])?.trim();
            Some(Constraint::new(label, op, pattern))
        }
        fb::ConstraintOp::Equal => Some(Constraint::new(label, op, value.trim_start_matches('=').trim())),
        _ => Some(Constraint::new(label, op, value.trim())),
    }
}

/// Millicores; `.5` and `5.` are no numbers.
pub(super) fn cpu(text: &str) -> Result<u32, UnitError> {
    parse_cpu(text)
}

/// A TOML value as JSON; the error is what JSON does not have.
pub(super) fn json(value: &DeValue<'_>) -> Result<serde_json::Value, String> {
    match value {
        DeValue::String(text) => Ok(serde_json::Value::from(text.as_ref())),
        DeValue::Integer(integer) => {
            whole(integer).map(serde_json::Value::from).ok_or_else(|| format!("the number {integer}"))
        }
        DeValue::Float(float) => {
            let number = float.as_str().parse().ok().and_then(serde_json::Number::from_f64);
            number.map(serde_json::Value::Number).ok_or_else(|| format!("the number {float}"))
        }
        DeValue::Boolean(truth) => Ok(serde_json::Value::from(*truth)),
        DeValue::Datetime(moment) => Ok(serde_json::Value::from(moment.to_string())),
        DeValue::Array(array) => array.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(table) => {
            table.iter().map(|(key, item)| Ok((key.get_ref().to_string(), json(item.get_ref())?))).collect()
        }
    }
}

/// A job's name from its file's: `first.toml` is `first`.
pub(super) fn name_of_path(path: &Path) -> Option<Name> {
    Name::new(path.file_stem()?.to_str()?).ok()
}

/// The key that a refusal by [`fleetwire_common::job::JobSpec::new`] is about.
pub(super) fn key_of(what: &str) -> &'static str {
    match what {
        "count" => "count",
        "command" | "number of arguments" => "command",
        "number of environment variables" | "environment variable" => "env",
        "number of files" | "file" | "path" => "file",
        "number of files and inputs" | "input" => "input",
        "sweep" | "number of sweep parameters" | "number of sweep values" | "bytes of a sweep value" => "sweep",
        "number of constraints"
        | "number of values of a constraint"
        | "bytes of a value of a constraint"
        | "bytes of a pattern of a constraint" => "constraints",
        "number of semaphores" => "semaphores",
        "number of preferences" | "weight of a preference" => "prefer",
        "bytes of parameters" => "parameters",
        "max_attempts" | "max_attempts or max_losses" => "max_attempts",
        "max_losses" => "max_losses",
        "number of dependencies" => "after",
        _ => "name",
    }
}
