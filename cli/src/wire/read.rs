//! A FlatBuffer into JSON, by its schema: `flatc`'s own form of JSON, but for bytes, which are `text:…` where
//! they are readable and `hex:…` otherwise. What is absent is left out.
//!
//! Every position is checked, so that bytes which nobody verified are read as far as they make sense, and refused
//! where they do not.

use super::schema::{Field, Kind, Scalar, Schema, Type};
use serde_json::{Map, Number, Value};

/// Why a buffer could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Something lies outside the buffer.
    #[error("byte {at} lies outside the buffer")]
    Outside {
        /// Where.
        at: usize,
    },
    /// Deeper or larger than anything honest.
    #[error("it is nested too deeply, or is larger than any message")]
    TooMuch,
    /// A type that the schema does not have.
    #[error("the schema does not say what it is")]
    Unknown,
}

/// The buffer's root, a table of type `root`, as JSON.
pub fn to_json(schema: &Schema, root: &str, bytes: &[u8]) -> Result<Value, ReadError> {
    let mut reader = Reader { schema, bytes, left: VALUES_MAX };
    let at = reader.follow(0)?;
    reader.table(root, at, DEPTH_MAX)
}

/// Bytes as the JSON form writes them.
pub fn bytes_text(bytes: &[u8]) -> String {
    let readable = |c: char| !c.is_control() || c == '\n' || c == '\t';
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && text.chars().all(readable) => format!("text:{text}"),
        _ => format!("hex:{}", hex(bytes)),
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Reader<'a> {
    schema: &'a Schema,
    bytes: &'a [u8],
    /// How many values may still be read: a buffer can name the same table again and again.
    left: usize,
}

impl<'a> Reader<'a> {
    fn table(&mut self, name: &str, at: usize, depth: u8) -> Result<Value, ReadError> {
        let depth = depth.checked_sub(1).ok_or(ReadError::TooMuch)?;
        let schema = self.schema;
        let fields = schema.table(name).ok_or(ReadError::Unknown)?;
        let mut object = Map::new();
        for field in fields {
            if let Some(Type::Union(members)) = field.kind.named().and_then(|of| schema.types.get(of)) {
                let Some(number) = self.slot(at, field.id.wrapping_sub(1))? else { continue };
                let number = self.array::<1>(number)?[0];
                let member = members.iter().find(|member| member.number == number);
                let name = member.map_or_else(|| Value::from(number), |member| Value::from(member.name.clone()));
                object.insert(format!("{}_type", field.name), name);
                if let (Some(member), Some(place)) = (member, self.slot(at, field.id)?) {
                    let to = self.follow(place)?;
                    object.insert(field.name.clone(), self.table(&member.of, to, depth)?);
                }
            } else if let Some(place) = self.slot(at, field.id)? {
                let value = self.value(field, place, depth)?;
                object.insert(field.name.clone(), value);
            }
        }
        Ok(Value::Object(object))
    }

    fn value(&mut self, field: &Field, at: usize, depth: u8) -> Result<Value, ReadError> {
        match &field.kind {
            Kind::Text => self.follow(at).and_then(|to| self.text(to)),
            Kind::Vector(of) => self.follow(at).and_then(|to| self.vector(of, to, depth)),
            Kind::Named(name) if self.schema.table(name).is_some() => {
                self.follow(at).and_then(|to| self.table(name, to, depth))
            }
            inline => self.inline(inline, at, depth),
        }
    }

    /// What lies in the table or the struct itself.
    fn inline(&mut self, kind: &Kind, at: usize, depth: u8) -> Result<Value, ReadError> {
        self.left = self.left.checked_sub(1).ok_or(ReadError::TooMuch)?;
        let schema = self.schema;
        match kind {
            Kind::Scalar(scalar) => self.scalar(*scalar, at),
            Kind::Array(of, count) => {
                let (size, _) = schema.size(of).ok_or(ReadError::Unknown)?;
                if **of == Kind::Scalar(Scalar::U8) {
                    return self.slice(at, usize::from(*count)).map(|bytes| bytes_text(bytes).into());
                }
                (0..usize::from(*count)).map(|place| self.inline(of, at + place * size, depth)).collect()
            }
            Kind::Named(name) => match schema.types.get(name) {
                Some(Type::Enum(of)) => {
                    let value = self.scalar(of.base, at)?;
                    let number = value.as_i64().map(i128::from).or(value.as_u64().map(i128::from));
                    Ok(number.and_then(|number| of.name(number)).map_or(value, Value::from))
                }
                Some(Type::Struct(fields)) => {
                    let depth = depth.checked_sub(1).ok_or(ReadError::TooMuch)?;
                    let (mut object, mut end) = (Map::new(), at);
                    for field in fields {
                        let (size, align) = schema.size(&field.kind).ok_or(ReadError::Unknown)?;
                        let start = at + (end - at).next_multiple_of(align);
                        object.insert(field.name.clone(), self.inline(&field.kind, start, depth)?);
                        end = start + size;
                    }
                    Ok(Value::Object(object))
                }
                Some(Type::Union(_) | Type::Table(_)) | None => Err(ReadError::Unknown),
            },
            Kind::Text | Kind::Vector(_) => Err(ReadError::Unknown),
        }
    }

    fn vector(&mut self, of: &Kind, at: usize, depth: u8) -> Result<Value, ReadError> {
        let length = self.u32(at)?;
        let first = at + 4;
        if *of == Kind::Scalar(Scalar::U8) {
            return self.slice(first, length).map(|bytes| bytes_text(bytes).into());
        }
        let is_reference = matches!(of, Kind::Text) || of.named().is_some_and(|name| self.schema.table(name).is_some());
        let size = if is_reference { 4 } else { self.schema.size(of).ok_or(ReadError::Unknown)?.0 };
        self.slice(first, length.checked_mul(size).ok_or(ReadError::TooMuch)?)?;
        let mut values = Vec::new();
        for place in (0..length).map(|item| first + item * size) {
            values.push(match of {
                Kind::Text => self.follow(place).and_then(|to| self.text(to))?,
                Kind::Named(name) if is_reference => self.follow(place).and_then(|to| self.table(name, to, depth))?,
                inline => self.inline(inline, place, depth)?,
            });
        }
        Ok(Value::Array(values))
    }

    fn text(&mut self, at: usize) -> Result<Value, ReadError> {
        self.left = self.left.checked_sub(1).ok_or(ReadError::TooMuch)?;
        let length = self.u32(at)?;
        Ok(String::from_utf8_lossy(self.slice(at + 4, length)?).into())
    }

    /// Where a table's field of that id is; `None` if it is absent.
    fn slot(&self, table: usize, id: u16) -> Result<Option<usize>, ReadError> {
        let back = i32::from_le_bytes(self.array(table)?);
        let vtable = i64::try_from(table).ok().and_then(|at| at.checked_sub(i64::from(back)));
        let vtable = vtable.and_then(|at| usize::try_from(at).ok()).ok_or(ReadError::Outside { at: table })?;
        let length = usize::from(u16::from_le_bytes(self.array(vtable)?));
        let place = 4 + 2 * usize::from(id);
        if place + 2 > length {
            return Ok(None);
        }
        let offset = usize::from(u16::from_le_bytes(self.array(vtable + place)?));
        Ok((offset != 0).then_some(table + offset))
    }

    fn follow(&self, at: usize) -> Result<usize, ReadError> {
        at.checked_add(self.u32(at)?).ok_or(ReadError::Outside { at })
    }

    fn u32(&self, at: usize) -> Result<usize, ReadError> {
        Ok(u32::from_le_bytes(self.array(at)?) as usize)
    }

    fn scalar(&self, scalar: Scalar, at: usize) -> Result<Value, ReadError> {
        let float = |value: f64| Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::Number);
        Ok(match scalar {
            Scalar::Bool => (self.array::<1>(at)? != [0]).into(),
            Scalar::I8 => i8::from_le_bytes(self.array(at)?).into(),
            Scalar::U8 => u8::from_le_bytes(self.array(at)?).into(),
            Scalar::I16 => i16::from_le_bytes(self.array(at)?).into(),
            Scalar::U16 => u16::from_le_bytes(self.array(at)?).into(),
            Scalar::I32 => i32::from_le_bytes(self.array(at)?).into(),
            Scalar::U32 => u32::from_le_bytes(self.array(at)?).into(),
            Scalar::I64 => i64::from_le_bytes(self.array(at)?).into(),
            Scalar::U64 => u64::from_le_bytes(self.array(at)?).into(),
            // The shortest text that is the same number, not the 64-bit number next to it.
            Scalar::F32 => float(f32::from_le_bytes(self.array(at)?).to_string().parse().unwrap_or(f64::NAN)),
            Scalar::F64 => float(f64::from_le_bytes(self.array(at)?)),
        })
    }

    fn slice(&self, at: usize, length: usize) -> Result<&'a [u8], ReadError> {
        let end = at.checked_add(length).ok_or(ReadError::Outside { at })?;
        self.bytes.get(at..end).ok_or(ReadError::Outside { at })
    }

    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], ReadError> {
        self.slice(at, N)?.try_into().map_err(|_| ReadError::Outside { at })
    }
}

/// As deep as the verifier lets a message be.
const DEPTH_MAX: u8 = 16;
/// More than the largest message holds.
const VALUES_MAX: usize = 4_000_000;
