//! JSON into a FlatBuffer, by its schema: the reverse of [`super::read`].
//!
//! Nothing is guessed: a field that the schema does not have, a number that does not fit, a name that an enum does
//! not know are refused with the path that leads there.

use super::schema::{Enum, Field, Kind, Scalar, Schema, Type};
use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, VOffsetT, WIPOffset};
use fleetwire_common::fb;
use serde_json::{Map, Value};

/// A builder, and what lies in it.
pub type Builder = FlatBufferBuilder<'static>;
/// Something that was written.
pub type Offset = WIPOffset<UnionWIPOffset>;

/// Why JSON does not say what the schema can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: expected {expected}, found {found}")]
pub struct BuildError {
    /// Where, such as `message.metrics[2].value`.
    pub path: String,
    /// What would do.
    pub expected: String,
    /// What is there, shortened.
    pub found: String,
}

/// Writes a table of type `name`. `written` are fields that the caller has written already: id and offset.
pub fn table(
    schema: &Schema,
    name: &str,
    value: &Value,
    builder: &mut Builder,
    written: &[(u16, Offset)],
) -> Result<Offset, BuildError> {
    let mut path = Vec::new();
    Writer { schema, builder, path: &mut path }.table(name, value, written)
}

struct Writer<'a> {
    schema: &'a Schema,
    builder: &'a mut Builder,
    path: &'a mut Vec<String>,
}

/// A field's value before its table is begun: what lies elsewhere is written first.
enum Part {
    Elsewhere(Offset),
    Number(Scalar, i128),
    Float(Scalar, f64),
    Receipt(fb::Receipt),
}

impl Writer<'_> {
    fn table(&mut self, name: &str, value: &Value, written: &[(u16, Offset)]) -> Result<Offset, BuildError> {
        let schema = self.schema;
        let fields = schema.table(name).ok_or_else(|| self.error("a table", name))?;
        let object = value.as_object().ok_or_else(|| self.wrong(&format!("an object with {name}'s fields"), value))?;
        self.no_others(fields, object)?;
        let mut parts: Vec<(u16, Part)> = written.iter().map(|(id, at)| (*id, Part::Elsewhere(*at))).collect();
        for field in fields {
            let Some(value) = object.get(&field.name).filter(|value| !value.is_null()) else { continue };
            if written.iter().any(|(id, _)| *id == field.id) {
                continue;
            }
            self.path.push(field.name.clone());
            if let Some(Type::Union(members)) = field.kind.named().and_then(|of| schema.types.get(of)) {
                let key = format!("{}_type", field.name);
                let found = object.get(&key).unwrap_or(&Value::Null);
                let member = members.iter().find(|member| found.as_str() == Some(&member.name));
                let member = member.ok_or_else(|| self.wrong(&format!("a message's name in `{key}`"), found))?;
                parts.push((field.id.wrapping_sub(1), Part::Number(Scalar::U8, member.number.into())));
                parts.push((field.id, Part::Elsewhere(self.table(&member.of, value, &[])?)));
            } else {
                let part = self.part(&field.kind, value)?;
                parts.push((field.id, part));
            }
            self.path.pop();
        }
        let start = self.builder.start_table();
        for (id, part) in parts {
            push(self.builder, 4 + 2 * id, part);
        }
        Ok(self.builder.end_table(start).as_union_value())
    }

    fn no_others(&self, fields: &[Field], object: &Map<String, Value>) -> Result<(), BuildError> {
        let known = |name: &str| {
            fields.iter().any(|field| name == field.name || name.strip_suffix("_type") == Some(&field.name))
        };
        match object.keys().find(|name| !known(name)) {
            Some(name) => {
                let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
                Err(self.error(&format!("one of {}", names.join(", ")), name))
            }
            None => Ok(()),
        }
    }

    fn part(&mut self, kind: &Kind, value: &Value) -> Result<Part, BuildError> {
        let schema = self.schema;
        match kind {
            Kind::Scalar(scalar) => self.number(*scalar, value),
            Kind::Text => {
                let text = value.as_str().ok_or_else(|| self.wrong("a text", value))?;
                Ok(Part::Elsewhere(self.builder.create_string(text).as_union_value()))
            }
            Kind::Vector(of) => self.vector(of, value).map(Part::Elsewhere),
            Kind::Named(name) => match schema.types.get(name) {
                Some(Type::Enum(of)) => self.enumerated(of, value),
                Some(Type::Table(_)) => self.table(name, value, &[]).map(Part::Elsewhere),
                Some(Type::Struct(_)) if name == "Receipt" => self.receipt(value).map(Part::Receipt),
                Some(Type::Struct(_) | Type::Union(_)) | None => Err(self.error("a type that can be written", name)),
            },
            Kind::Array(..) => Err(self.error("a type that can be written", &kind.to_string())),
        }
    }

    fn vector(&mut self, of: &Kind, value: &Value) -> Result<Offset, BuildError> {
        if *of == Kind::Scalar(Scalar::U8) && value.is_string() {
            let bytes = self.bytes(value)?;
            return Ok(self.builder.create_vector(&bytes).as_union_value());
        }
        let items = value.as_array().ok_or_else(|| self.wrong("a list", value))?;
        let mut parts = Vec::with_capacity(items.len());
        for (place, item) in items.iter().enumerate() {
            self.path.push(format!("[{place}]"));
            parts.push(self.part(of, item)?);
            self.path.pop();
        }
        Ok(vector_of(self.builder, &parts, self.schema, of))
    }

    fn number(&self, scalar: Scalar, value: &Value) -> Result<Part, BuildError> {
        if matches!(scalar, Scalar::F32 | Scalar::F64) {
            // JSON has no NaN; its name as a text stands for it.
            let number = value.as_f64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
            return number.map(|number| Part::Float(scalar, number)).ok_or_else(|| self.wrong("a number", value));
        }
        let number = value.as_i64().map(i128::from).or(value.as_u64().map(i128::from));
        let number = if scalar == Scalar::Bool { value.as_bool().map(i128::from) } else { number };
        let (least, most) = range(scalar);
        match number.filter(|number| (least..=most).contains(number)) {
            Some(number) => Ok(Part::Number(scalar, number)),
            None if scalar == Scalar::Bool => Err(self.wrong("true or false", value)),
            None => Err(self.wrong(&format!("an integer from {least} to {most}"), value)),
        }
    }

    fn enumerated(&self, of: &Enum, value: &Value) -> Result<Part, BuildError> {
        match value.as_str() {
            Some(name) => {
                let number = of.value(name).ok_or_else(|| {
                    let names: Vec<&str> = of.values.iter().map(|(name, _)| name.as_str()).collect();
                    self.wrong(&format!("one of {}, or a number", names.join(", ")), value)
                })?;
                Ok(Part::Number(of.base, number))
            }
            None => self.number(of.base, value),
        }
    }

    fn receipt(&self, value: &Value) -> Result<fb::Receipt, BuildError> {
        let number = |name: &str| value.get(name).and_then(Value::as_u64);
        let mac = value.get("mac").map(|mac| self.bytes(mac)).transpose()?.and_then(|mac| mac.try_into().ok());
        match (number("incarnation"), number("position"), mac) {
            (Some(incarnation), Some(position), Some(mac)) => Ok(fb::Receipt::new(incarnation, position, &mac)),
            _ => Err(self.wrong("incarnation, position, and mac of 16 bytes", value)),
        }
    }

    fn bytes(&self, value: &Value) -> Result<Vec<u8>, BuildError> {
        let text = value.as_str().unwrap_or_default();
        if let Some(plain) = text.strip_prefix("text:") {
            return Ok(plain.as_bytes().to_vec());
        }
        let bytes = text.strip_prefix("hex:").and_then(from_hex);
        bytes.ok_or_else(|| self.wrong("bytes, as `text:…` or `hex:…`", value))
    }

    fn wrong(&self, expected: &str, value: &Value) -> BuildError {
        self.error(expected, &value.to_string())
    }

    fn error(&self, expected: &str, found: &str) -> BuildError {
        let mut path = String::new();
        for part in self.path.iter() {
            if !path.is_empty() && !part.starts_with('[') {
                path.push('.');
            }
            path.push_str(part);
        }
        let path = if path.is_empty() { String::from("the envelope") } else { path };
        let found = if found.is_empty() { "nothing" } else { found };
        let found = if found == "null" { String::from("nothing") } else { found.chars().take(60).collect() };
        BuildError { path, expected: expected.to_owned(), found }
    }
}

/// Hexadecimal digits as bytes.
pub fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(|pair| if pair.iter().all(u8::is_ascii_hexdigit) { byte(pair) } else { None }).collect()
}

fn push(builder: &mut Builder, slot: VOffsetT, part: Part) {
    match part {
        Part::Elsewhere(at) => builder.push_slot_always(slot, at),
        Part::Receipt(receipt) => builder.push_slot_always(slot, receipt),
        Part::Float(Scalar::F32, number) => builder.push_slot_always(slot, number as f32),
        Part::Float(_, number) => builder.push_slot_always(slot, number),
        Part::Number(scalar, number) => match scalar {
            Scalar::Bool => builder.push_slot_always(slot, number != 0),
            Scalar::I8 | Scalar::U8 => builder.push_slot_always(slot, number as u8),
            Scalar::I16 | Scalar::U16 => builder.push_slot_always(slot, number as u16),
            Scalar::I32 | Scalar::U32 | Scalar::F32 => builder.push_slot_always(slot, number as u32),
            Scalar::I64 | Scalar::U64 | Scalar::F64 => builder.push_slot_always(slot, number as u64),
        },
    }
}

/// Numbers are written with the width that they have in the vector: 8, 16, 32 or 64 bits.
fn vector_of(builder: &mut Builder, parts: &[Part], schema: &Schema, of: &Kind) -> Offset {
    let elsewhere: Vec<Offset> =
        parts.iter().filter_map(|part| if let Part::Elsewhere(at) = part { Some(*at) } else { None }).collect();
    let bits = |part: &Part| match part {
        Part::Number(_, number) => *number as u64,
        Part::Float(Scalar::F32, number) => u64::from((*number as f32).to_bits()),
        Part::Float(_, number) => number.to_bits(),
        Part::Elsewhere(_) | Part::Receipt(_) => 0,
    };
    let numbers = parts.iter().map(bits);
    match schema.size(of).map(|(size, _)| size) {
        Some(1) => builder.create_vector(&numbers.map(|bits| bits as u8).collect::<Vec<_>>()).as_union_value(),
        Some(2) => builder.create_vector(&numbers.map(|bits| bits as u16).collect::<Vec<_>>()).as_union_value(),
        Some(4) => builder.create_vector(&numbers.map(|bits| bits as u32).collect::<Vec<_>>()).as_union_value(),
        Some(_) => builder.create_vector(&numbers.collect::<Vec<_>>()).as_union_value(),
        None => builder.create_vector(&elsewhere).as_union_value(),
    }
}

fn range(scalar: Scalar) -> (i128, i128) {
    match scalar {
        Scalar::Bool => (0, 1),
        Scalar::I8 => (i8::MIN.into(), i8::MAX.into()),
        Scalar::U8 => (0, u8::MAX.into()),
        Scalar::I16 => (i16::MIN.into(), i16::MAX.into()),
        Scalar::U16 => (0, u16::MAX.into()),
        Scalar::I32 => (i32::MIN.into(), i32::MAX.into()),
        Scalar::U32 => (0, u32::MAX.into()),
        Scalar::I64 => (i64::MIN.into(), i64::MAX.into()),
        Scalar::U64 | Scalar::F32 | Scalar::F64 => (0, u64::MAX.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::read::bytes_text, *};

    #[test]
    fn bytes_come_back_as_they_were() {
        for bytes in [&b"hello\n"[..], b"", b"hex:00", &[0, 255, 10]] {
            let text = bytes_text(bytes);
            let back = text.strip_prefix("text:").map(|it| it.as_bytes().to_vec());
            let back = back.or_else(|| from_hex(text.strip_prefix("hex:")?));
            assert_eq!(back.as_deref(), Some(bytes));
        }
        assert_eq!((from_hex("0"), from_hex("0g"), from_hex("+1")), (None, None, None));
    }
}
