//! What a FlatBuffers schema says: its tables, structs, enums and unions, read from its text.
//!
//! It holds what reading a buffer and judging a change need, and no more: no documentation, no RPC
//! services. Types are told by their last name, so two of one name in different namespaces are refused.

use super::parse::{finish, parse_file};
use std::{collections::BTreeMap, fmt};

/// The types of one schema and of all that it includes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schema {
    /// By their names.
    pub types: BTreeMap<String, Type>,
    /// What a buffer's root is.
    pub root: Option<String>,
}

/// One type.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// Named numbers.
    Enum(Enum),
    /// One of several tables; its values are the numbers of its members, from 1.
    Union(Vec<Member>),
    /// Fields that may be absent.
    Table(Vec<Field>),
    /// Fields in a row.
    Struct(Vec<Field>),
}

/// An enum.
#[derive(Clone, Debug, PartialEq)]
pub struct Enum {
    /// What it is stored as.
    pub base: Scalar,
    /// Names and numbers, in order.
    pub values: Vec<(String, i128)>,
    /// Values are bits.
    pub is_flags: bool,
}

/// A union's member.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// What it is called.
    pub name: String,
    /// Its number on the wire.
    pub number: u8,
    /// Its table.
    pub of: String,
}

/// A field of a table or a struct.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// What it is called.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
    /// Its place in the table. A union's own; its type has the one before.
    pub id: u16,
    /// What it says when it is absent, as it was written.
    pub default: Option<String>,
    /// No longer written.
    pub is_deprecated: bool,
    /// Always there.
    pub is_required: bool,
}

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number.
    Scalar(Scalar),
    /// A text.
    Text,
    /// An enum, union, table or struct of that name.
    Named(String),
    /// Any number of those.
    Vector(Box<Kind>),
    /// So many of those, in a struct.
    Array(Box<Kind>, u16),
}

/// A number's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Scalar {
    Bool,
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F32,
    F64,
}

/// Why a schema could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: expected {expected}, found {found}")]
pub struct SchemaError {
    /// Where.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// What would do.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl SchemaError {
    pub(super) fn new(file: &str, line: u32, expected: &str, found: &str) -> SchemaError {
        SchemaError { file: file.to_owned(), line, expected: expected.to_owned(), found: found.to_owned() }
    }
}

impl Schema {
    /// The schema that this build speaks.
    pub fn ours() -> Result<Schema, SchemaError> {
        Schema::parse(&fleetwire_common::fb::TEXTS)
    }

    /// Reads files, each with its name. What they include must be among them.
    pub fn parse<N: AsRef<str>, T: AsRef<str>>(files: &[(N, T)]) -> Result<Schema, SchemaError> {
        let (mut schema, mut unnumbered) = (Schema::default(), Vec::new());
        for (name, text) in files {
            parse_file(name.as_ref(), text.as_ref(), &mut schema, &mut unnumbered)?;
        }
        finish(&mut schema, &unnumbered)?;
        Ok(schema)
    }

    /// The fields of a table.
    pub fn table(&self, name: &str) -> Option<&[Field]> {
        match self.types.get(name) {
            Some(Type::Table(fields)) => Some(fields),
            Some(Type::Struct(_) | Type::Enum(_) | Type::Union(_)) | None => None,
        }
    }

    /// How many bytes a value in a struct takes, and how it is aligned; `None` for what cannot be in one.
    pub fn size(&self, kind: &Kind) -> Option<(usize, usize)> {
        self.size_within(kind, STRUCTS_DEEP_MAX)
    }

    fn size_within(&self, kind: &Kind, depth: u8) -> Option<(usize, usize)> {
        match kind {
            Kind::Scalar(scalar) => Some((scalar.bytes(), scalar.bytes())),
            Kind::Array(of, count) => {
                let (size, align) = self.size_within(of, depth.checked_sub(1)?)?;
                Some((size.checked_mul(usize::from(*count))?, align))
            }
            Kind::Named(name) => match self.types.get(name)? {
                Type::Enum(of) => Some((of.base.bytes(), of.base.bytes())),
                Type::Struct(fields) => {
                    let (mut end, mut most) = (0usize, 1);
                    for field in fields {
                        let (size, align) = self.size_within(&field.kind, depth.checked_sub(1)?)?;
                        end = end.next_multiple_of(align).checked_add(size)?;
                        most = most.max(align);
                    }
                    Some((end.next_multiple_of(most), most))
                }
                Type::Union(_) | Type::Table(_) => None,
            },
            Kind::Text | Kind::Vector(_) => None,
        }
    }
}

impl Kind {
    /// The type that it names, alone or in a vector or an array.
    pub fn named(&self) -> Option<&str> {
        match self {
            Kind::Named(name) => Some(name),
            Kind::Vector(of) | Kind::Array(of, _) => of.named(),
            Kind::Scalar(_) | Kind::Text => None,
        }
    }
}

impl Enum {
    /// A value's name.
    pub fn name(&self, value: i128) -> Option<&str> {
        self.values.iter().find(|(_, number)| *number == value).map(|(name, _)| &**name)
    }

    /// The value of that name.
    pub fn value(&self, name: &str) -> Option<i128> {
        self.values.iter().find(|(known, _)| known == name).map(|(_, number)| *number)
    }
}

impl Scalar {
    /// Its size.
    pub fn bytes(self) -> usize {
        match self {
            Scalar::Bool | Scalar::I8 | Scalar::U8 => 1,
            Scalar::I16 | Scalar::U16 => 2,
            Scalar::I32 | Scalar::U32 | Scalar::F32 => 4,
            Scalar::I64 | Scalar::U64 | Scalar::F64 => 8,
        }
    }

    /// By either of its names in schemas.
    pub(super) fn of_name(name: &str) -> Option<Scalar> {
        let scalar = match name {
            "bool" => Scalar::Bool,
            "byte" | "int8" => Scalar::I8,
            "ubyte" | "uint8" => Scalar::U8,
            "short" | "int16" => Scalar::I16,
            "ushort" | "uint16" => Scalar::U16,
            "int" | "int32" => Scalar::I32,
            "uint" | "uint32" => Scalar::U32,
            "long" | "int64" => Scalar::I64,
            "ulong" | "uint64" => Scalar::U64,
            "float" | "float32" => Scalar::F32,
            "double" | "float64" => Scalar::F64,
            _ => return None,
        };
        Some(scalar)
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scalar::Bool => "bool",
            Scalar::I8 => "byte",
            Scalar::U8 => "ubyte",
            Scalar::I16 => "short",
            Scalar::U16 => "ushort",
            Scalar::I32 => "int",
            Scalar::U32 => "uint",
            Scalar::I64 => "long",
            Scalar::U64 => "ulong",
            Scalar::F32 => "float",
            Scalar::F64 => "double",
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Scalar(scalar) => scalar.fmt(f),
            Kind::Text => f.write_str("string"),
            Kind::Named(name) => f.write_str(name),
            Kind::Vector(of) => write!(f, "[{of}]"),
            Kind::Array(of, count) => write!(f, "[{of}:{count}]"),
        }
    }
}

/// Structs in structs.
const STRUCTS_DEEP_MAX: u8 = 16;
