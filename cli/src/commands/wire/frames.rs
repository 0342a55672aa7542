//! `wire decode` and `wire validate`: frames as a person or a program wants to see them.

use super::{
    super::{now_ms, print, print_json},
    args::{Frames, Validate},
    read, wrong,
};
use crate::{
    error::CliError,
    wire::{
        build::from_hex,
        read::{hex, to_json},
        schema::Schema,
    },
};
use fleetwire_common::{
    envelope::{Examined, Examiner, Knowledge, OpenError, SIGNATURE_BYTES, Violation},
    fb,
    job::JobSpec,
    roles::may_send,
};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// `wire decode`.
pub fn decode(command: &Frames, as_json: bool) -> Result<u8, CliError> {
    let (schema, bytes) = (Schema::ours()?, input(command)?);
    let mut examiner = Examiner::new(knowledge(command, &bytes));
    let mut shown = Vec::new();
    for frame in split(command, &bytes)? {
        let examined = examiner.examine(frame, None);
        shown.push(Shown::new(&schema, frame, examined));
    }
    if as_json {
        return print_json(&shown.iter().map(Shown::to_json).collect::<Vec<_>>()).map(|()| 0);
    }
    let mut text = String::new();
    for (number, frame) in (1..).zip(&shown) {
        frame.write_text(number, &mut text)?;
    }
    print(&text).map(|()| 0)
}

/// `wire validate`.
pub fn validate(command: &Validate, as_json: bool) -> Result<u8, CliError> {
    let (schema, bytes) = (Schema::ours()?, input(&command.frames)?);
    let knowledge =
        Knowledge { arrived_ms: command.arrived, is_whole: command.whole, ..knowledge(&command.frames, &bytes) };
    let unchecked = unchecked(command, &knowledge);
    let mut examiner = Examiner::new(knowledge);
    let (mut text, mut all, mut is_broken) = (String::new(), Vec::new(), false);
    for (number, frame) in (1..).zip(split(&command.frames, &bytes)?) {
        let shown = Shown::new(&schema, frame, examiner.examine(frame, command.stream));
        let mut broken: Vec<Broken> = shown.examined.violations.iter().map(Broken::from).collect();
        broken.extend(shown.meaning(command.from.map(|role| role.role())));
        is_broken |= !broken.is_empty();
        let verdict = match broken.len() {
            0 => String::from("keeps to the rules"),
            1 => String::from("breaks a rule"),
            count => format!("breaks {count} rules"),
        };
        writeln!(text, "frame {number}: {} bytes, {}: {verdict}", frame.len(), shown.kind())?;
        for it in &broken {
            let item = it.item.map(|item| format!("batch item {item}: ")).unwrap_or_default();
            writeln!(text, "  §{:<12} {item}{}", it.requirement, it.says)?;
        }
        let broken: Vec<Value> = broken
            .iter()
            .map(|it| json!({ "requirement": it.requirement, "item": it.item, "error": it.says }))
            .collect();
        all.push(json!({ "frame": number, "bytes": frame.len(), "message": shown.kind(), "violations": broken }));
    }
    if as_json {
        print_json(&json!({ "frames": all, "not_checked": unchecked }))?;
    } else {
        if !unchecked.is_empty() {
            writeln!(text, "not checked: {}", unchecked.join(", "))?;
        }
        print(&text)?;
    }
    Ok(u8::from(is_broken))
}

/// What could not be judged for want of knowledge, with what would help.
fn unchecked(command: &Validate, knowledge: &Knowledge) -> Vec<&'static str> {
    let parts = [
        (knowledge.key.is_none(), "signatures (--key)"),
        (knowledge.arrived_ms.is_none(), "freshness (--arrived)"),
        (!knowledge.is_whole, "the session's beginning (--whole)"),
        (command.from.is_none(), "roles (--from)"),
    ];
    parts.into_iter().filter(|(is, _)| *is).map(|(_, what)| what).collect()
}

/// The file's bytes, out of their digits if need be.
fn input(command: &Frames) -> Result<Vec<u8>, CliError> {
    let bytes = read(&command.file)?;
    if !command.hex {
        return Ok(bytes);
    }
    let digits: String = String::from_utf8_lossy(&bytes).split_whitespace().collect();
    from_hex(&digits).ok_or_else(|| wrong(&command.file, "with --hex it must hold hexadecimal digits and nothing else"))
}

fn knowledge(command: &Frames, bytes: &[u8]) -> Knowledge {
    let key = command.key.as_ref().map(|key| {
        let said = frames(bytes).next().and_then(Result::ok).and_then(key_id);
        (key.0.clone(), command.key_id.or(said).unwrap_or(0))
    });
    Knowledge { key, ..Knowledge::default() }
}

fn key_id(frame: &[u8]) -> Option<u32> {
    frame.last_chunk::<SIGNATURE_BYTES>()?.first_chunk::<4>().map(|id| u32::from_le_bytes(*id))
}

fn split<'a>(command: &Frames, bytes: &'a [u8]) -> Result<Vec<&'a [u8]>, CliError> {
    if bytes.is_empty() {
        return Err(wrong(&command.file, "it is empty: expected frames, each a u32 length and so many bytes"));
    }
    frames(bytes).collect::<Result<_, _>>().map_err(|error| wrong(&command.file, error))
}

/// Frames one behind the other. A lone one whose prefix lies is given whole, to be judged.
fn frames(bytes: &[u8]) -> impl Iterator<Item = Result<&[u8], String>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let length = rest.first_chunk::<4>().map(|prefix| u32::from_le_bytes(*prefix) as usize + 4);
        let frame = length.and_then(|length| rest.get(..length));
        let frame = match frame {
            Some(frame) => Ok(frame),
            None if at == 0 => Ok(rest),
            None => Err(format!(
                "at byte {at}: expected a frame, found {} bytes where the prefix says {}",
                rest.len(),
                length.unwrap_or(4)
            )),
        };
        at += frame.as_ref().map_or(rest.len(), |frame| frame.len());
        Some(frame)
    })
}

/// A broken rule, in words.
struct Broken {
    requirement: &'static str,
    item: Option<u16>,
    says: String,
}

impl From<&Violation> for Broken {
    fn from(it: &Violation) -> Broken {
        Broken { requirement: it.requirement, item: it.item, says: one_line(&it.error) }
    }
}

/// A frame with all that can be said of it.
struct Shown {
    bytes: usize,
    key_id: Option<u32>,
    tag: String,
    examined: Examined,
    envelope: Option<Value>,
    body: Option<Value>,
}

impl Shown {
    fn new(schema: &Schema, frame: &[u8], examined: Examined) -> Shown {
        // What the verifier refused is not walked through, even though reading checks every step.
        let readable = frame.get(4..).filter(|_| examined.is_readable);
        let envelope = readable.and_then(|bytes| to_json(schema, "MessageEnvelope", bytes).ok());
        let body = examined.body.as_ref().and_then(|bytes| to_json(schema, "Body", bytes).ok());
        let mut shown = Shown {
            bytes: frame.len(),
            key_id: key_id(frame),
            tag: frame.last_chunk::<32>().map(|tag| hex(tag)).unwrap_or_default(),
            examined,
            envelope,
            body,
        };
        for part in [&mut shown.envelope, &mut shown.body].into_iter().flatten() {
            each_message(part, &mut |kind, message| {
                if matches!(kind, "SubmitJob" | "PlanJob") {
                    show_job(schema, message);
                }
            });
        }
        shown
    }

    /// Its messages with their batch items.
    fn messages(&self) -> Vec<(Option<u16>, String, Value)> {
        let mut messages = Vec::new();
        for part in [&self.envelope, &self.body].into_iter().flatten() {
            let mut copy = part.clone();
            let is_batch = copy.get("batch").is_some();
            each_message(&mut copy, &mut |kind, message| {
                let item = is_batch.then(|| u16::try_from(messages.len()).unwrap_or(u16::MAX));
                messages.push((item, kind.to_owned(), message.clone()));
            });
        }
        messages
    }

    fn kind(&self) -> String {
        if self.envelope.is_none() {
            return String::from("no envelope");
        }
        let messages = self.messages();
        let mut kinds: Vec<&str> = messages.iter().map(|(_, kind, _)| kind.as_str()).collect();
        // A chunk is how its body travels.
        if self.body.is_some() && kinds.len() > 1 {
            kinds.retain(|kind| *kind != "Chunk");
        }
        let count = kinds.len();
        kinds.sort_unstable();
        kinds.dedup();
        match (count, kinds.as_slice()) {
            (0, _) => String::from("no message"),
            (1, [kind]) => (*kind).to_owned(),
            (_, kinds) => format!("batch of {count}: {}", kinds.join(", ")),
        }
    }

    /// What the message's own meaning breaks: the role table, ids that are none, a job that none would take.
    fn meaning(&self, from: Option<fb::Role>) -> Vec<Broken> {
        let mut broken = Vec::new();
        for (item, kind, message) in self.messages() {
            let number = (0..=u8::MAX).map(fb::SchedulerMessage).find(|it| it.variant_name() == Some(&kind));
            if let (Some(role), Some(number)) = (from, number)
                && !may_send(role, number)
            {
                let role = role.variant_name().unwrap_or_default().to_lowercase();
                broken.push(Broken {
                    requirement: "role-1",
                    item,
                    says: format!("a {kind} from {role}: nobody takes that"),
                });
            }
            let task = message.get("task_id").and_then(Value::as_str);
            if let Some(Err(error)) = task.map(str::parse::<fleetwire_common::ids::TaskId>) {
                broken.push(Broken { requirement: "open-12", item, says: format!("task_id: {error}") });
            }
            if matches!(kind.as_str(), "SubmitJob" | "PlanJob") {
                let job =
                    message.get("job").and_then(Value::as_str).and_then(|text| from_hex(text.strip_prefix("hex:")?));
                if let Err(error) = JobSpec::from_wire(&job.unwrap_or_default()) {
                    broken.push(Broken { requirement: "open-12", item, says: format!("job: {error}") });
                }
            }
        }
        broken
    }

    fn signature(&self) -> &'static str {
        match self.examined.is_authentic {
            Some(true) => "right",
            Some(false) => "wrong",
            None => "not checked",
        }
    }

    fn to_json(&self) -> Value {
        let violations: Vec<String> = self.examined.violations.iter().map(|it| one_line(&it.error)).collect();
        json!({
            "bytes": self.bytes,
            "message": self.kind(),
            "signature": { "key_id": self.key_id, "tag": self.tag, "state": self.signature() },
            "envelope": self.envelope,
            "body": self.body,
            "errors": violations,
        })
    }

    fn write_text(&self, number: usize, text: &mut String) -> Result<(), CliError> {
        writeln!(text, "frame {number}: {} bytes, {}", self.bytes, self.kind())?;
        let at = |name: &str| self.envelope.as_ref().and_then(|envelope| envelope.get(name));
        if let Some(sealed_ms) = at("timestamp").and_then(Value::as_u64) {
            writeln!(text, "  sealed at   {sealed_ms} ms, {}", crate::table::ago(sealed_ms, now_ms()))?;
        }
        let place = |name: &str| at(name).and_then(Value::as_u64).unwrap_or(0);
        if self.envelope.is_some() {
            writeln!(text, "  stream      {}, sequence {}", place("stream"), place("sequence"))?;
        }
        if let Some(key_id) = self.key_id {
            let how = if self.examined.is_authentic.is_none() { " (--key checks it)" } else { "" };
            writeln!(text, "  signature   {}{how}: key id {key_id}, tag {}", self.signature(), self.tag)?;
        }
        if let Some(packed) = at("packed") {
            let raw = packed.get("raw_len").and_then(Value::as_u64).unwrap_or(0);
            let data = packed.get("data").and_then(Value::as_str).map_or(0, |data| data.len().saturating_sub(4) / 2);
            let times = raw as f64 / data.max(1) as f64;
            writeln!(text, "  compressed  {data} bytes for {raw}, {times:.1} to 1")?;
        }
        for violation in &self.examined.violations {
            writeln!(text, "  wrong       §{} {}", violation.requirement, one_line(&violation.error))?;
        }
        for (item, kind, mut message) in self.messages() {
            let item = item.map(|item| format!("{item} ")).unwrap_or_default();
            shorten(&mut message);
            let pretty = serde_json::to_string_pretty(&message).unwrap_or_default();
            writeln!(text, "  {item}{kind} {}", pretty.replace('\n', "\n  "))?;
        }
        Ok(())
    }
}

/// Every message of an envelope or a body, in order.
fn each_message(table: &mut Value, see: &mut dyn FnMut(&str, &mut Value)) {
    let Some(object) = table.as_object_mut() else { return };
    let kind =
        object.get("message_type").map(|kind| kind.as_str().map_or_else(|| format!("type {kind}"), str::to_owned));
    if let Some(kind) = kind {
        // A type that this build does not know has nothing that it could show.
        let mut nothing = Value::Object(Map::new());
        see(&kind, object.get_mut("message").unwrap_or(&mut nothing));
    }
    for item in object.get_mut("batch").and_then(Value::as_array_mut).into_iter().flatten() {
        each_message(item, see);
    }
}

/// Adds what a submitted job's bytes say.
fn show_job(schema: &Schema, message: &mut Value) {
    let bytes = message.get("job").and_then(Value::as_str).and_then(|text| from_hex(text.strip_prefix("hex:")?));
    let Some(spec) = bytes.and_then(|bytes| to_json(schema, "JobSpec", &bytes).ok()) else { return };
    if let Some(object) = message.as_object_mut() {
        object.insert(String::from("(job)"), spec);
    }
}

/// The verifier's words have several lines.
fn one_line(error: &OpenError) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Cuts long texts for people; programs get everything.
fn shorten(value: &mut Value) {
    match value {
        Value::String(text) if text.len() > SHOWN_BYTES_MAX => {
            let shown: String = text.chars().take(SHOWN_BYTES_MAX).collect();
            *text = format!("{shown}… ({} characters)", text.chars().count());
        }
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::Object(object) => object.values_mut().for_each(shorten),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

const SHOWN_BYTES_MAX: usize = 160;
