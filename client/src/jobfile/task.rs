//! One `[[task]]` of a job file.

use super::{
    Read,
    mistake::{Fault, MistakeKind},
    section::{Field, Section, wrong_type},
    values,
};
use fleetwire_common::{
    constraint::OPERATORS,
    custom::Custom,
    fb,
    ids::Name,
    job::{Constraint, Dependency, FileSpec, Preference, Semaphore, TaskSpec},
    limits::{
        ARRAY_TASKS_MAX, ATTEMPTS_MAX, CUSTOM_AMOUNT_MAX, GANG_MAX, PREFERENCE_WEIGHT_MAX, RESOURCES_MAX,
        SEMAPHORE_UNITS_MAX,
    },
    resources::{Resources, parse_memory, parse_storage},
    sweep::{Axis, Sweep, Value},
};
use std::{collections::BTreeMap, ops::Range, path::Path};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

const TASK_KEYS: &[&str] = &[
    "name",
    "count",
    "kind",
    "command",
    "script",
    "executor",
    "cpu",
    "memory",
    "gpu",
    "storage",
    "storage_backend",
    "resources",
    "env",
    "parameters",
    "file",
    "priority",
    "constraints",
    "timeout",
    "queue_timeout",
    "max_attempts",
    "max_losses",
    "backoff",
    "kill_grace",
    "result",
    "after",
    "max_running",
    "input",
    "whole_agent",
    "distinct_agents",
    "semaphores",
    "gang",
    "gang_lost",
    "prefer",
    "sweep",
];
const INPUT_KEYS: &[&str] = &["task", "path"];
const PREFER_KEYS: &[&str] = &["constraint", "weight"];
const AFTER_KEYS: &[&str] = &["task", "on", "each"];
const SEMAPHORE_KEYS: &[&str] = &["name", "max", "units"];
const FILE_KEYS: &[&str] = &["path", "content", "source", "executable"];

/// A task entry, and where each of its values stands.
pub(super) struct Entry {
    pub spec: TaskSpec,
    /// Where each of the names stands that it comes after.
    pub after_at: Vec<Range<usize>>,
    heading: Range<usize>,
    spans: BTreeMap<&'static str, Range<usize>>,
}

impl Entry {
    /// Where the value of that key stands; without one, the heading.
    pub fn span_of(&self, key: &str) -> Range<usize> {
        self.spans.get(key).unwrap_or(&self.heading).clone()
    }
}

/// Reads one entry; `ordinal` names it when it has no name.
pub(super) fn entry(
    table: &DeTable<'_>,
    heading: Range<usize>,
    ordinal: usize,
    read: Read<'_>,
) -> Result<Entry, Fault> {
    let section = Section::open("a task", TASK_KEYS, table, heading.clone())?;
    let mut spec = TaskSpec { name: name(&section, ordinal)?, ..TaskSpec::default() };
    what_runs(&section, &mut spec)?;
    what_it_needs(&section, &mut spec)?;
    how_it_is_tried(&section, &mut spec)?;
    if let Some(field) = section.field("env")? {
        for (key, value) in field.pairs("a table of texts, such as { MODE = \"fast\" }")? {
            spec.environment.push((key.to_owned(), value.text()?.to_owned()));
        }
    }
    if let Some(field) = section.field("parameters")? {
        if !matches!(field.value.get_ref(), DeValue::Table(_)) {
            return Err(wrong_type("parameters", "a table, such as { rate = 0.1 }", field.value));
        }
        let json = values::json(field.value.get_ref());
        spec.parameters = json.map_err(|found| field.fault(MistakeKind::Parameter { found }))?.to_string();
    }
    if let Some(field) = section.field("sweep")? {
        section.exclusive("sweep", "count")?;
        sweep(&field, &mut spec)?;
    }
    if let Some(field) = section.field("file")? {
        for value in field.array("a list of tables, written as [[task.file]]")? {
            let DeValue::Table(table) = value.get_ref() else {
                return Err(wrong_type("file", "a table", value));
            };
            let section = Section::open("a file", FILE_KEYS, table, value.span())?;
            spec.files.push(file(&section, read)?);
        }
    }
    let mut after_at = Vec::new();
    if let Some(field) = section.field("after")? {
        for value in field.array("a list of tasks' names, or of tables, written as [[task.after]]")? {
            let (dependency, at) = dependency(value)?;
            spec.after.push(dependency);
            after_at.push(at);
        }
    }
    if let Some(field) = section.field("input")? {
        for value in field.array("a list of tables, written as [[task.input]]")? {
            let DeValue::Table(table) = value.get_ref() else {
                return Err(wrong_type("input", "a table, such as { task = \"build\" }", value));
            };
            let section = Section::open("an input", INPUT_KEYS, table, value.span())?;
            let task = section.field("task")?.ok_or_else(|| section.missing("task"))?;
            let (name, path) = (task.name()?, section.field("path")?);
            let input = path.map_or(Ok(name.to_string()), |path| path.text().map(str::to_owned))?;
            // Whoever wants a result comes after it.
            match spec.after.iter_mut().find(|after| after.task == name && after.input.is_empty()) {
                Some(after) => after.input = input,
                None => {
                    spec.after.push(Dependency { task: name, on: fb::DependencyOn::Success, each: false, input });
                    after_at.push(task.value.span());
                }
            }
        }
    }
    let spans = TASK_KEYS.iter().map(|key| (*key, section.span_of(key))).collect();
    Ok(Entry { spec, after_at, heading, spans })
}

fn name(section: &Section<'_>, ordinal: usize) -> Result<Name, Fault> {
    match section.field("name")? {
        Some(field) => field.name(),
        // The first is `task`, those after it `task-2`, `task-3`, …
        None if ordinal == 0 => Ok(TaskSpec::default().name),
        None => Name::new(&format!("task-{}", ordinal + 1)).map_err(|_| section.missing("name")),
    }
}

fn what_runs(section: &Section<'_>, spec: &mut TaskSpec) -> Result<(), Fault> {
    section.exclusive("script", "command")?;
    if let Some(field) = section.field("executor")? {
        spec.executor = field.choice(values::EXECUTOR_NAMES, &values::EXECUTORS)?;
    }
    if let Some(field) = section.field("command")? {
        let mut words = field.texts()?.into_iter();
        spec.command = words.next().unwrap_or_default();
        spec.arguments = words.collect();
    }
    if let Some(field) = section.field("script")? {
        spec.command = String::from("sh");
        spec.arguments = vec![String::from("-c"), field.text()?.to_owned()];
    }
    let nothing = section.field("command")?.is_none() && section.field("script")?.is_none();
    if nothing && spec.executor == fb::Executor::Process {
        return Err(section.missing("command"));
    }
    if let Some(field) = section.field("count")? {
        spec.count = bounded(&field, 1, ARRAY_TASKS_MAX)?;
        spec.array = true;
    }
    if let Some(field) = section.field("kind")? {
        spec.agent_type = field.choice(values::KIND_NAMES, &values::KINDS)?;
    }
    if let Some(field) = section.field("result")? {
        spec.result_path = field.text()?.to_owned();
    }
    Ok(())
}

fn what_it_needs(section: &Section<'_>, spec: &mut TaskSpec) -> Result<(), Fault> {
    let mut needs = Resources::ZERO;
    if let Some(field) = section.field("cpu")? {
        needs.cpu = field.cpu()?;
    }
    if let Some(field) = section.field("memory")? {
        needs.memory = field.sized(parse_memory, "an amount with a unit, such as \"64MB\"")?;
    }
    if let Some(field) = section.field("gpu")? {
        needs.gpu = bounded(&field, 0, RESOURCES_MAX.gpu)?;
    }
    if let Some(field) = section.field("storage")? {
        needs.storage = field.sized(parse_storage, "an amount with a unit, such as \"10GB\"")?;
    }
    spec.resources = needs;
    if let Some(field) = section.field("resources")? {
        spec.custom = custom(&field)?;
    }
    if let Some(field) = section.field("storage_backend")? {
        spec.storage_backend = field.choice(values::STORAGE_NAMES, &values::STORAGES)?;
    }
    if let Some(field) = section.field("whole_agent")? {
        spec.whole_agent = field.bool()?;
    }
    if let Some(field) = section.field("distinct_agents")? {
        spec.distinct_agents = field.bool()?;
    }
    if let Some(field) = section.field("semaphores")? {
        for value in field.array("a list of names, or of tables such as { name = \"db\", max = 3 }")? {
            spec.semaphores.push(semaphore(value)?);
        }
    }
    if let Some(field) = section.field("gang")? {
        spec.gang = bounded(&field, 2, GANG_MAX)?;
    }
    if let Some(field) = section.field("gang_lost")? {
        const POLICIES: [fb::OnLost; 3] = [fb::OnLost::Restart, fb::OnLost::Replace, fb::OnLost::Fail];
        spec.gang_lost = field.choice(&["restart", "replace", "fail"], &POLICIES)?;
    }
    if let Some(field) = section.field("prefer")? {
        for value in field.array("a list of tables, written as [[task.prefer]]")? {
            spec.prefer.push(preference(value)?);
        }
    }
    if let Some(field) = section.field("constraints")? {
        spec.constraints = constraints(&field)?;
    }
    Ok(())
}

/// A name, of which one task at a time may hold the one unit there is, or a table.
fn semaphore(value: &Spanned<DeValue<'_>>) -> Result<Semaphore, Fault> {
    let DeValue::Table(table) = value.get_ref() else {
        return Ok(Semaphore { name: Field { key: "semaphores", value }.name()?, max: 1, units: 1 });
    };
    let section = Section::open("a semaphore", SEMAPHORE_KEYS, table, value.span())?;
    let name = section.field("name")?.ok_or_else(|| section.missing("name"))?.name()?;
    let units = |key| section.field(key)?.map_or(Ok(1), |field| bounded(&field, 1, SEMAPHORE_UNITS_MAX));
    Ok(Semaphore { name, max: units("max")?, units: units("units")? })
}

/// What is counted by name.
fn custom(field: &Field<'_>) -> Result<Custom, Fault> {
    let amount = |(name, value): (&'_ str, Field<'_>)| {
        let amount = value.integer(0..=i64::from(CUSTOM_AMOUNT_MAX))?;
        Ok((name.to_owned(), amount.unsigned_abs()))
    };
    let pairs = field.pairs("a table of whole numbers, such as { fpga = 1 }")?;
    let amounts: Vec<(String, u64)> = pairs.into_iter().map(amount).collect::<Result<_, Fault>>()?;
    let custom = Custom::new(amounts.iter().map(|(name, amount)| (name.as_str(), *amount)));
    custom.map_err(|error| field.fault(MistakeKind::Custom(error)))
}

fn how_it_is_tried(section: &Section<'_>, spec: &mut TaskSpec) -> Result<(), Fault> {
    if let Some(field) = section.field("priority")? {
        let number = field.integer(i64::from(i8::MIN)..=i64::from(i8::MAX))?;
        spec.priority = i8::try_from(number).unwrap_or_default();
    }
    if let Some(field) = section.field("timeout")? {
        spec.timeout_s = field.seconds()?;
    }
    if let Some(field) = section.field("queue_timeout")? {
        spec.queue_timeout_s = field.seconds()?;
    }
    if let Some(field) = section.field("max_attempts")? {
        spec.max_attempts = bounded(&field, 1, ATTEMPTS_MAX)?;
    }
    if let Some(field) = section.field("max_losses")? {
        spec.max_losses = bounded(&field, 1, ATTEMPTS_MAX)?;
    }
    if let Some(field) = section.field("max_running")? {
        spec.max_running = bounded(&field, 1, u32::MAX)?;
    }
    if let Some(field) = section.field("backoff")? {
        spec.backoff_ms = field.milliseconds()?;
    }
    if let Some(field) = section.field("kill_grace")? {
        spec.kill_grace_ms = field.milliseconds()?;
    }
    Ok(())
}

/// A constraint that ranks, and how much it weighs.
fn preference(value: &Spanned<DeValue<'_>>) -> Result<Preference, Fault> {
    let DeValue::Table(table) = value.get_ref() else { return Err(wrong_type("prefer", "a table", value)) };
    let section = Section::open("a preference", PREFER_KEYS, table, value.span())?;
    let field = section.field("constraint")?.ok_or_else(|| section.missing("constraint"))?;
    let weight = section.field("weight")?.ok_or_else(|| section.missing("weight"))?;
    let max = i64::from(PREFERENCE_WEIGHT_MAX);
    let weight = i16::try_from(weight.integer(-max..=max)?).unwrap_or_default();
    Ok(Preference { constraint: constraint(&field)?, weight })
}

fn constraint(field: &Field<'_>) -> Result<Constraint, Fault> {
    let text = field.text()?;
    values::constraint(text).ok_or_else(|| field.fault(MistakeKind::Constraint { found: text.to_owned() }))
}

fn constraints(field: &Field<'_>) -> Result<Vec<Constraint>, Fault> {
    const EXPECTED: &str = "a list such as [\"zone = eu\"] or a table such as { zone = \"eu\" }";
    if let DeValue::Array(items) = field.value.get_ref() {
        let item = |value| constraint(&Field { key: field.key, value });
        return items.iter().map(item).collect();
    }
    let of_label = |(label, value): (&str, Field<'_>)| {
        let name = Name::new(label).map_err(|error| value.fault(MistakeKind::Name(error)))?;
        of_label(&name, &value)
    };
    Ok(field.pairs(EXPECTED)?.into_iter().map(of_label).collect::<Result<Vec<_>, _>>()?.concat())
}

/// What a table says of one label.
fn of_label(label: &Name, field: &Field<'_>) -> Result<Vec<Constraint>, Fault> {
    use fb::ConstraintOp as Op;
    const EXPECTED: &str = "a text, a list, a table such as { \">=\" = \"535.2\" }, or `true` or `false` for a label that is \
                            there or not";
    let one = |op, text: &str| vec![Constraint::new(label.clone(), op, text)];
    match field.value.get_ref() {
        DeValue::Boolean(true) => Ok(one(Op::Exists, "")),
        DeValue::Boolean(false) => Ok(one(Op::NotExists, "")),
        DeValue::String(text) => Ok(one(Op::Equal, text.as_ref())),
        DeValue::Array(_) => Ok(vec![Constraint::one_of(label.clone(), field.texts()?)]),
        DeValue::Table(_) => {
            let compared = |(operator, value): (&str, Field<'_>)| {
                let op = OPERATORS.iter().find(|(known, _)| *known == operator).map(|(_, op)| *op);
                match op.ok_or_else(|| wrong_type(label.as_str(), EXPECTED, field.value))? {
                    Op::In => Ok(Constraint::one_of(label.clone(), value.texts()?)),
                    op => Ok(Constraint::new(label.clone(), op, value.text()?)),
                }
            };
            field.pairs(EXPECTED)?.into_iter().map(compared).collect()
        }
        _ => Err(wrong_type(label.as_str(), EXPECTED, field.value)),
    }
}

/// One of what a task comes after: a name, or a table; and where the name stands.
fn dependency(value: &Spanned<DeValue<'_>>) -> Result<(Dependency, Range<usize>), Fault> {
    const ONS: [fb::DependencyOn; 3] = [fb::DependencyOn::Success, fb::DependencyOn::Failure, fb::DependencyOn::End];
    let DeValue::Table(table) = value.get_ref() else {
        let field = Field { key: "after", value };
        return Ok((
            Dependency { task: field.name()?, on: fb::DependencyOn::Success, each: false, input: String::new() },
            value.span(),
        ));
    };
    let section = Section::open("a dependency", AFTER_KEYS, table, value.span())?;
    let task = section.field("task")?.ok_or_else(|| section.missing("task"))?;
    let on = match section.field("on")? {
        Some(field) => field.choice(&["success", "failure", "end"], &ONS)?,
        None => fb::DependencyOn::Success,
    };
    let each = section.field("each")?.map_or(Ok(false), |field| field.bool())?;
    Ok((Dependency { task: task.name()?, on, each, input: String::new() }, task.value.span()))
}

/// Lists of values, each under its parameter's name; the entry is an array of their combinations.
fn sweep(field: &Field<'_>, spec: &mut TaskSpec) -> Result<(), Fault> {
    const EXPECTED: &str = "a table of lists, such as { rate = [0.1, 0.01], seed = [1, 2, 3] }";
    let mut sweep = Sweep::default();
    for (name, list) in field.pairs(EXPECTED)? {
        if name == "mode" {
            sweep.zip = list.choice(&["product", "zip"], &[false, true])?;
            continue;
        }
        let value = |value: &Spanned<DeValue<'_>>| match value.get_ref() {
            DeValue::String(text) => Ok(Value { text: text.to_string(), quoted: true }),
            other => {
                let json = values::json(other).map_err(|found| list.fault(MistakeKind::Parameter { found }))?;
                let quoted = json.is_string();
                Ok(Value { text: json.as_str().map_or_else(|| json.to_string(), str::to_owned), quoted })
            }
        };
        let found =
            list.array("a list of values, such as [1, 2, 3]")?.iter().map(value).collect::<Result<_, Fault>>()?;
        sweep.axes.push(Axis { name: name.to_owned(), values: found });
    }
    // What is too much, or nothing, is refused with the rest of the job.
    spec.count = sweep
        .count()
        .filter(|_| !sweep.axes.is_empty())
        .map_or(1, |count| u32::try_from(count).unwrap_or(u32::MAX).max(1));
    (spec.array, spec.sweep) = (true, Some(Box::new(sweep)));
    Ok(())
}

fn file(section: &Section<'_>, read: Read<'_>) -> Result<FileSpec, Fault> {
    section.exclusive("source", "content")?;
    let source = section.field("source")?;
    let content = section.field("content")?;
    let path = match (section.field("path")?, &source) {
        (Some(field), _) => field.text()?.to_owned(),
        (None, Some(source)) => source.text()?.to_owned(),
        (None, None) => return Err(section.missing("path")),
    };
    let data = match (source, content) {
        (Some(field), _) => {
            let source = field.text()?;
            read(Path::new(source))
                .map_err(|error| field.fault(MistakeKind::File { path: source.to_owned(), error: error.to_string() }))?
        }
        (None, Some(field)) => field.text()?.as_bytes().to_vec(),
        (None, None) => return Err(section.missing("content")),
    };
    let executable = section.field("executable")?.map_or(Ok(false), |field| field.bool())?;
    Ok(FileSpec { path, data, executable })
}

pub(super) fn bounded(field: &Field<'_>, min: u32, max: u32) -> Result<u32, Fault> {
    Ok(u32::try_from(field.integer(i64::from(min)..=i64::from(max))?).unwrap_or(max))
}
