//! A schema's text into its types. Strict where a mistake would change what is read; what neither reading nor
//! judging needs (RPC services, attributes, file extensions) is passed over.

use super::{
    lexer::{Word, words},
    schema::{Enum, Field, Kind, Member, Scalar, Schema, SchemaError, Type},
};
use std::collections::BTreeMap;

/// Tables and structs whose fields wait for their ids: what a field is, union or not, is known at the end.
pub(super) type Unnumbered = Vec<(String, Place, Vec<Option<u16>>)>;

/// Where something stands, for an error about it: its file and line.
pub(super) type Place = (String, u32);

/// Adds a file's types to the schema.
pub(super) fn parse_file(
    file: &str,
    text: &str,
    schema: &mut Schema,
    unnumbered: &mut Unnumbered,
) -> Result<(), SchemaError> {
    let words = words(file, text)?;
    let mut parser = Parser { file, words: &words, at: 0 };
    while let Some(keyword) = parser.next_name()? {
        match keyword.as_str() {
            "include" | "attribute" | "file_identifier" | "file_extension" | "namespace" => parser.skip_to(';')?,
            "root_type" => {
                schema.root = Some(parser.path()?);
                parser.sign(';')?;
            }
            "table" | "struct" => parser.fields(keyword == "table", schema, unnumbered)?,
            "enum" => {
                let name = parser.new_name(schema)?;
                let values = parser.enumeration()?;
                schema.types.insert(name, Type::Enum(values));
            }
            "union" => {
                let name = parser.new_name(schema)?;
                let members = parser.union()?;
                schema.types.insert(name, Type::Union(members));
            }
            "rpc_service" => {
                parser.name()?;
                parser.skip_to('}')?;
            }
            _ => return Err(parser.error_before("a declaration such as `table`")),
        }
    }
    Ok(())
}

/// Once all types are known: ids for all fields, and nothing that is not declared anywhere.
pub(super) fn finish(schema: &mut Schema, unnumbered: &Unnumbered) -> Result<(), SchemaError> {
    let known = schema.types.clone();
    for (name, (file, line), ids) in unnumbered {
        let Some(Type::Table(fields) | Type::Struct(fields)) = schema.types.get_mut(name) else { continue };
        for field in fields.iter() {
            if let Some(unknown) = field.kind.named().filter(|of| !known.contains_key(*of)) {
                return Err(SchemaError::new(file, *line, "a type that is declared", &format!("`{unknown}`")));
            }
        }
        let written = ids.iter().flatten().count();
        if written != 0 && written != ids.len() {
            return Err(SchemaError::new(file, *line, "an id for every field or for none", &format!("`{name}`")));
        }
        number(name, fields, ids, &known).map_err(|expected| SchemaError::new(file, *line, &expected, "one twice"))?;
    }
    Ok(())
}

/// Words, and where we are in them.
struct Parser<'a> {
    file: &'a str,
    words: &'a [(Word, u32)],
    at: usize,
}

impl Parser<'_> {
    /// The name of a type that is declared here.
    fn new_name(&mut self, schema: &Schema) -> Result<String, SchemaError> {
        let name = self.name()?;
        if schema.types.contains_key(&name) {
            return Err(self.error_before("a name that no other type has, in whatever namespace"));
        }
        Ok(name)
    }

    fn fields(&mut self, in_table: bool, schema: &mut Schema, unnumbered: &mut Unnumbered) -> Result<(), SchemaError> {
        let type_name = self.new_name(schema)?;
        let place = (self.file.to_owned(), self.line());
        self.attributes()?;
        self.sign('{')?;
        let (mut fields, mut ids) = (Vec::new(), Vec::new());
        while !self.takes('}') {
            let name = self.name()?;
            self.sign(':')?;
            let kind = self.kind(in_table)?;
            let default = if self.takes('=') { Some(self.value()?) } else { None };
            let attributes = self.attributes()?;
            let has = |wanted: &str| attributes.iter().any(|(name, _)| name == wanted);
            let id = match attributes.iter().find(|(name, _)| name == "id") {
                Some((_, text)) => Some(text.parse().map_err(|_| self.error_before("an id from 0 to 65535"))?),
                None => None,
            };
            self.sign(';')?;
            ids.push(id);
            fields.push(Field {
                name,
                kind,
                id: 0,
                default,
                is_deprecated: has("deprecated"),
                is_required: has("required"),
            });
        }
        let parsed = if in_table { Type::Table(fields) } else { Type::Struct(fields) };
        schema.types.insert(type_name.clone(), parsed);
        unnumbered.push((type_name, place, ids));
        Ok(())
    }

    fn kind(&mut self, in_table: bool) -> Result<Kind, SchemaError> {
        if !self.takes('[') {
            return self.plain_kind();
        }
        let of = Box::new(self.plain_kind()?);
        let kind = if !in_table && self.takes(':') {
            let count = self.value()?.parse().map_err(|_| self.error_before("how many, from 1 to 65535"))?;
            Kind::Array(of, count)
        } else {
            Kind::Vector(of)
        };
        self.sign(']')?;
        Ok(kind)
    }

    fn plain_kind(&mut self) -> Result<Kind, SchemaError> {
        let name = self.path()?;
        Ok(match Scalar::of_name(&name) {
            Some(scalar) => Kind::Scalar(scalar),
            None if name == "string" => Kind::Text,
            None => Kind::Named(name),
        })
    }

    fn enumeration(&mut self) -> Result<Enum, SchemaError> {
        self.sign(':')?;
        let base = Scalar::of_name(&self.name()?).filter(|base| !matches!(base, Scalar::F32 | Scalar::F64));
        let base = base.ok_or_else(|| self.error_before("an integer type such as `ubyte`"))?;
        let is_flags = self.attributes()?.iter().any(|(name, _)| name == "bit_flags");
        self.sign('{')?;
        let mut values: Vec<(String, i128)> = Vec::new();
        while !self.takes('}') {
            let name = self.name()?;
            let next = values.last().map_or(0, |(_, last)| last + 1);
            let number = if self.takes('=') { self.integer()? } else { next };
            self.attributes()?;
            values.push((name, number));
            if !self.takes(',') {
                self.sign('}')?;
                break;
            }
        }
        if is_flags {
            values
                .iter_mut()
                .for_each(|(_, bit)| *bit = 1i128.checked_shl(u32::try_from(*bit).unwrap_or(127)).unwrap_or(0));
        }
        Ok(Enum { base, values, is_flags })
    }

    fn union(&mut self) -> Result<Vec<Member>, SchemaError> {
        self.attributes()?;
        self.sign('{')?;
        let mut members: Vec<Member> = Vec::new();
        while !self.takes('}') {
            let name = self.path()?;
            let of = if self.takes(':') { self.path()? } else { name.clone() };
            let next = members.last().map_or(1, |last| i128::from(last.number) + 1);
            let number = if self.takes('=') { self.integer()? } else { next };
            let number = u8::try_from(number).map_err(|_| self.error_before("at most 255 members"))?;
            self.attributes()?;
            members.push(Member { name, number, of });
            if !self.takes(',') {
                self.sign('}')?;
                break;
            }
        }
        Ok(members)
    }

    /// `(name, name: value, …)`, if it is there.
    fn attributes(&mut self) -> Result<Vec<(String, String)>, SchemaError> {
        let mut attributes = Vec::new();
        if !self.takes('(') {
            return Ok(attributes);
        }
        while !self.takes(')') {
            let name = self.name()?;
            let value = if self.takes(':') { self.value()? } else { String::new() };
            attributes.push((name, value));
            if !self.takes(',') {
                self.sign(')')?;
                break;
            }
        }
        Ok(attributes)
    }

    /// A name with its namespace, of which the last part is kept.
    fn path(&mut self) -> Result<String, SchemaError> {
        let mut name = self.name()?;
        while self.takes('.') {
            name = self.name()?;
        }
        Ok(name)
    }

    fn value(&mut self) -> Result<String, SchemaError> {
        match self.step() {
            Some(Word::Name(text) | Word::Number(text) | Word::Text(text)) => Ok(text),
            Some(Word::Sign('[')) => self.sign(']').map(|()| String::from("[]")),
            Some(Word::Sign(_)) | None => Err(self.error_before("a value")),
        }
    }

    fn integer(&mut self) -> Result<i128, SchemaError> {
        let text = self.value()?;
        let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
        let number = hex.map_or_else(|| text.parse(), |digits| i128::from_str_radix(digits, 16));
        number.map_err(|_| self.error_before("an integer"))
    }

    fn name(&mut self) -> Result<String, SchemaError> {
        match self.step() {
            Some(Word::Name(name)) => Ok(name),
            Some(Word::Number(_) | Word::Text(_) | Word::Sign(_)) | None => Err(self.error_before("a name")),
        }
    }

    /// A name, or the end of the file.
    fn next_name(&mut self) -> Result<Option<String>, SchemaError> {
        if self.at >= self.words.len() { Ok(None) } else { self.name().map(Some) }
    }

    fn sign(&mut self, wanted: char) -> Result<(), SchemaError> {
        match self.step() {
            Some(Word::Sign(found)) if found == wanted => Ok(()),
            _ => Err(self.error_before(&format!("`{wanted}`"))),
        }
    }

    fn takes(&mut self, wanted: char) -> bool {
        let is_next = matches!(self.words.get(self.at), Some((Word::Sign(found), _)) if *found == wanted);
        self.at += usize::from(is_next);
        is_next
    }

    fn skip_to(&mut self, wanted: char) -> Result<(), SchemaError> {
        while !self.takes(wanted) {
            if self.step().is_none() {
                return Err(self.error_before(&format!("`{wanted}`")));
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Option<Word> {
        let word = self.words.get(self.at).map(|(word, _)| word.clone());
        self.at += 1;
        word
    }

    /// The line of the word that was just taken.
    fn line(&self) -> u32 {
        let taken = self.at.checked_sub(1).and_then(|at| self.words.get(at));
        taken.or(self.words.last()).map_or(1, |(_, line)| *line)
    }

    /// An error about the word that was just taken.
    fn error_before(&self, expected: &str) -> SchemaError {
        let line = self.line();
        let found = self.at.checked_sub(1).and_then(|at| self.words.get(at));
        let found = found.map_or_else(|| String::from("the end of the file"), |(word, _)| word.to_string());
        SchemaError::new(self.file, line, expected, &found)
    }
}

/// Takes the ids that were written, or gives ids in order where none was: a union takes two, its own and one
/// before it for its type.
fn number(
    name: &str,
    raw: &mut [Field],
    written: &[Option<u16>],
    types: &BTreeMap<String, Type>,
) -> Result<(), String> {
    let mut next = 0u16;
    for (field, id) in raw.iter_mut().zip(written) {
        let of = field.kind.named().and_then(|of| types.get(of));
        next = next.saturating_add(u16::from(matches!(of, Some(Type::Union(_)))));
        field.id = id.unwrap_or(next);
        next = next.saturating_add(1);
    }
    raw.sort_by_key(|field| field.id);
    let twice = raw.windows(2).any(|two| matches!(two, [a, b] if a.id == b.id));
    if twice { Err(format!("each id once in `{name}`")) } else { Ok(()) }
}
