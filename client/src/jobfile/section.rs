//! Typed access to a table of a job file: every key known, every value of its type, every number in
//! its range, and each refusal with its place.

use super::{
    mistake::{Fault, MistakeKind, nearest},
    values,
};
use fleetwire_common::{ids::Name, resources::UnitError};
use std::ops::{Range, RangeInclusive};
use toml::{
    Spanned,
    de::{DeArray, DeInteger, DeTable, DeValue},
};

/// A table whose keys all exist.
pub(crate) struct Section<'t> {
    what: &'static str,
    table: &'t DeTable<'t>,
    /// Its heading.
    pub span: Range<usize>,
}

/// One key and its value.
pub(crate) struct Field<'t> {
    pub key: &'t str,
    pub value: &'t Spanned<DeValue<'t>>,
}

impl<'t> Section<'t> {
    /// Refuses the first unknown key, in the order of the text.
    pub fn open(
        what: &'static str,
        known: &'static [&'static str],
        table: &'t DeTable<'t>,
        span: Range<usize>,
    ) -> Result<Section<'t>, Fault> {
        let unknown = table.keys().filter(|key| !known.contains(&key.get_ref().as_ref()));
        if let Some(key) = unknown.min_by_key(|key| key.span().start) {
            let found = key.get_ref().to_string();
            let kind = MistakeKind::UnknownKey { nearest: nearest(&found, known), found, section: what, known };
            return Err(Fault::new(key.span(), kind));
        }
        Ok(Section { what, table, span })
    }

    /// The field of that key, if it is there.
    pub fn field(&self, key: &str) -> Result<Option<Field<'t>>, Fault> {
        Ok(self.table.get_key_value(key).map(|(key, value)| Field { key: key.get_ref(), value }))
    }

    /// Where its value stands; without one, the heading.
    pub fn span_of(&self, key: &str) -> Range<usize> {
        self.table.get(key).map_or(self.span.clone(), |value| value.span())
    }

    /// Refuses that a key is not there.
    pub fn missing(&self, field: &'static str) -> Fault {
        Fault::new(self.span.clone(), MistakeKind::Missing { section: self.what, field })
    }

    /// Refuses two keys that exclude each other.
    pub fn exclusive(&self, field: &'static str, other: &'static str) -> Result<(), Fault> {
        let (Some((key, _)), Some((first, _))) = (self.table.get_key_value(field), self.table.get_key_value(other))
        else {
            return Ok(());
        };
        Err(Fault::new(key.span(), MistakeKind::Conflict { field, other }).with_context(first.span(), "the other one"))
    }
}

impl<'t> Field<'t> {
    /// A fault at its value.
    pub fn fault(&self, kind: MistakeKind) -> Fault {
        Fault::new(self.value.span(), kind)
    }

    fn wrong(&self, expected: &'static str) -> Fault {
        wrong_type(self.key, expected, self.value)
    }

    pub fn text(&self) -> Result<&'t str, Fault> {
        self.value.get_ref().as_str().ok_or_else(|| self.wrong("a text in quotes"))
    }

    pub fn name(&self) -> Result<Name, Fault> {
        Name::new(self.text()?).map_err(|error| self.fault(MistakeKind::Name(error)))
    }

    pub fn bool(&self) -> Result<bool, Fault> {
        self.value.get_ref().as_bool().ok_or_else(|| self.wrong("`true` or `false`"))
    }

    pub fn array(&self, expected: &'static str) -> Result<&'t DeArray<'t>, Fault> {
        match self.value.get_ref() {
            DeValue::Array(array) => Ok(array),
            _ => Err(self.wrong(expected)),
        }
    }

    /// The keys and values of a table, in the order of the text.
    pub fn pairs(&self, expected: &'static str) -> Result<Vec<(&'t str, Field<'t>)>, Fault> {
        let DeValue::Table(table) = self.value.get_ref() else { return Err(self.wrong(expected)) };
        let mut pairs: Vec<_> = table.iter().collect();
        pairs.sort_by_key(|(key, _)| key.span().start);
        Ok(pairs
            .into_iter()
            .map(|(key, value)| (key.get_ref().as_ref(), Field { key: key.get_ref(), value }))
            .collect())
    }

    pub fn texts(&self) -> Result<Vec<String>, Fault> {
        const EXPECTED: &str = "a list of texts, such as [\"sh\", \"run.sh\"]";
        let text = |value: &Spanned<DeValue<'_>>| match value.get_ref().as_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(wrong_type(self.key, EXPECTED, value)),
        };
        self.array(EXPECTED)?.iter().map(text).collect()
    }

    pub fn integer(&self, range: RangeInclusive<i64>) -> Result<i64, Fault> {
        let DeValue::Integer(integer) = self.value.get_ref() else { return Err(self.wrong("a whole number")) };
        whole(integer).filter(|number| range.contains(number)).ok_or_else(|| {
            self.fault(MistakeKind::OutOfRange {
                field: self.key.to_owned(),
                found: integer.to_string(),
                min: *range.start(),
                max: *range.end(),
            })
        })
    }

    /// A moment, Unix ms. Where a day begins depends on where one is: without an offset it is none.
    pub fn moment_ms(&self) -> Result<u64, Fault> {
        const EXPECTED: &str = "a date and time with its offset from UTC and no quotes, such as 2027-03-01T06:00:00Z or \
                                2027-03-01T06:00:00+01:00";
        let DeValue::Datetime(found) = self.value.get_ref() else { return Err(self.wrong(EXPECTED)) };
        let kind = || MistakeKind::Moment { field: self.key.to_owned(), found: found.to_string(), expected: EXPECTED };
        values::moment_ms(found).ok_or_else(|| self.fault(kind()))
    }

    /// Millicores: a text with a unit, or a number of cores.
    pub fn cpu(&self) -> Result<u32, Fault> {
        match self.value.get_ref() {
            DeValue::Integer(cores) => self.amount(&cores.to_string(), values::cpu),
            DeValue::Float(cores) => self.amount(cores.as_str(), values::cpu),
            _ => match self.value.get_ref().as_str() {
                Some(text) => self.amount(text, values::cpu),
                None => Err(self.wrong("cores such as 2 or 1.5, or millicores such as \"500m\"")),
            },
        }
    }

    /// An amount that needs its unit.
    pub fn sized(&self, parse: fn(&str) -> Result<u32, UnitError>, expected: &'static str) -> Result<u32, Fault> {
        match self.value.get_ref() {
            // A bare number gets the unit's own words rather than a lecture on types.
            DeValue::Integer(number) => self.amount(&number.to_string(), parse),
            _ => match self.value.get_ref().as_str() {
                Some(text) => self.amount(text, parse),
                None => Err(self.wrong(expected)),
            },
        }
    }

    fn amount(&self, text: &str, parse: fn(&str) -> Result<u32, UnitError>) -> Result<u32, Fault> {
        parse(text).map_err(|error| self.fault(MistakeKind::Unit(error)))
    }

    /// A duration in whole seconds, at least one.
    pub fn seconds(&self) -> Result<u64, Fault> {
        const EXPECTED: &str = "whole seconds with a unit, such as \"30s\", \"5m\" or \"2h\"";
        let ms = self.milliseconds_as(EXPECTED)?;
        if ms == 0 || ms % 1_000 != 0 {
            return Err(self.duration_fault(EXPECTED));
        }
        Ok(ms / 1_000)
    }

    /// A duration in milliseconds.
    pub fn milliseconds(&self) -> Result<u32, Fault> {
        const EXPECTED: &str = "a number with a unit, such as \"500ms\", \"30s\" or \"5m\", below 49 days";
        u32::try_from(self.milliseconds_as(EXPECTED)?).map_err(|_| self.duration_fault(EXPECTED))
    }

    fn milliseconds_as(&self, expected: &'static str) -> Result<u64, Fault> {
        let parsed = self.value.get_ref().as_str().and_then(values::duration);
        let ms = parsed.and_then(|duration| u64::try_from(duration.as_millis()).ok());
        ms.ok_or_else(|| self.duration_fault(expected))
    }

    fn duration_fault(&self, expected: &'static str) -> Fault {
        let found = match self.value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number.to_string(),
            other => other.type_str().to_owned(),
        };
        self.fault(MistakeKind::Duration { field: self.key.to_owned(), found, expected })
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&self, names: &'static [&'static str], values: &[T]) -> Result<T, Fault> {
        let found = self.text()?;
        let place = names.iter().position(|name| *name == found);
        place.and_then(|place| values.get(place).copied()).ok_or_else(|| {
            self.fault(MistakeKind::UnknownValue {
                field: self.key.to_owned(),
                found: found.to_owned(),
                nearest: nearest(found, names),
                known: names,
            })
        })
    }
}

/// Refuses a value of another type.
pub(crate) fn wrong_type(field: &str, expected: &'static str, value: &Spanned<DeValue<'_>>) -> Fault {
    let found = match value.get_ref() {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "a truth value",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    Fault::new(value.span(), MistakeKind::WrongType { field: field.to_owned(), found, expected })
}

/// A whole number, if it has at most 64 bits.
pub(super) fn whole(integer: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}
