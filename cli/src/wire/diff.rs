//! Does a changed schema keep to the rules of evolution (docs/protocol.md#versions)? Whoever was built from the old
//! one must read what the new one writes, and the reverse.

// §version-3
use super::schema::{Enum, Field, Kind, Member, Schema, Type};
use serde::Serialize;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Whether peers of the two schemas would misread each other.
    pub breaks: bool,
    /// The type, or its field or value: `Heartbeat.cpu`.
    pub place: String,
    /// What changed.
    pub what: String,
}

/// All differences, in the order of their types.
pub fn diff(old: &Schema, new: &Schema) -> Vec<Change> {
    let mut changes = Changes(Vec::new());
    if old.root != new.root {
        let name = |root: &Option<String>| root.clone().unwrap_or_else(|| String::from("nothing"));
        changes.breaks("root_type", format!("was {}, is {}", name(&old.root), name(&new.root)));
    }
    for (name, was) in &old.types {
        match new.types.get(name) {
            Some(is) => changes.of_type(name, was, is),
            None => changes.breaks(name, String::from("is gone")),
        }
    }
    for name in new.types.keys().filter(|name| !old.types.contains_key(*name)) {
        changes.keeps(name, String::from("is new"));
    }
    changes.0
}

struct Changes(Vec<Change>);

impl Changes {
    fn breaks(&mut self, place: &str, what: String) {
        self.0.push(Change { breaks: true, place: place.to_owned(), what });
    }

    fn keeps(&mut self, place: &str, what: String) {
        self.0.push(Change { breaks: false, place: place.to_owned(), what });
    }

    fn of_type(&mut self, name: &str, was: &Type, is: &Type) {
        match (was, is) {
            (Type::Table(was), Type::Table(is)) => self.of_table(name, was, is),
            (Type::Struct(was), Type::Struct(is)) => self.of_struct(name, was, is),
            (Type::Enum(was), Type::Enum(is)) => self.of_enum(name, was, is),
            (Type::Union(was), Type::Union(is)) => self.of_union(name, was, is),
            _ => self.breaks(name, format!("was {}, is {}", word(was), word(is))),
        }
    }

    fn of_table(&mut self, table: &str, was: &[Field], is: &[Field]) {
        for old in was {
            let place = format!("{table}.{}", old.name);
            match is.iter().find(|new| new.name == old.name) {
                Some(new) => self.of_field(&place, old, new),
                None => match is.iter().find(|new| new.id == old.id) {
                    Some(new) => {
                        self.breaks(&place, format!("id {} is called {} now: names never change", old.id, new.name))
                    }
                    None => self.breaks(&place, format!("id {} is gone: mark it deprecated instead", old.id)),
                },
            }
        }
        let end = was.iter().map(|old| old.id + 1).max().unwrap_or(0);
        let mut next = end;
        for new in is.iter().filter(|new| was.iter().all(|old| old.name != new.name)) {
            let place = format!("{table}.{}", new.name);
            let renames = was.iter().any(|old| old.id == new.id);
            if !renames && new.id < end {
                self.breaks(&place, format!("is new with id {}: new fields come last, from id {end}", new.id));
            } else if new.is_required {
                self.breaks(&place, String::from("is new and required: peers of the old schema do not write it"));
            } else if !renames && new.id > next + 1 {
                self.breaks(&place, format!("is new with id {}: the next one is {next}", new.id));
            } else if !renames {
                self.keeps(&place, format!("is new, id {}, {}", new.id, new.kind));
            }
            next = next.max(new.id + 1);
        }
    }

    fn of_field(&mut self, place: &str, was: &Field, is: &Field) {
        if was.id != is.id {
            self.breaks(place, format!("id was {}, is {}", was.id, is.id));
        }
        if was.kind != is.kind {
            self.breaks(place, format!("was {}, is {}", was.kind, is.kind));
        }
        let default = |field: &Field| field.default.clone().unwrap_or_else(|| zero(&field.kind));
        if default(was) != default(is) {
            self.breaks(place, format!("says {} when it is absent, said {}", default(is), default(was)));
        }
        if is.is_required && !was.is_required {
            self.breaks(place, String::from("is required now: peers of the old schema may leave it out"));
        }
        if was.is_required && !is.is_required {
            self.breaks(
                place,
                String::from("is not required any more: peers of the old schema refuse a table without it"),
            );
        }
        if is.is_deprecated && !was.is_deprecated {
            self.keeps(place, String::from("is deprecated now"));
        }
    }

    fn of_struct(&mut self, name: &str, was: &[Field], is: &[Field]) {
        let words = |fields: &[Field]| {
            let fields: Vec<String> = fields.iter().map(|field| format!("{}:{}", field.name, field.kind)).collect();
            fields.join(", ")
        };
        let layout =
            |fields: &[Field]| fields.iter().map(|field| (field.name.clone(), field.kind.clone())).collect::<Vec<_>>();
        if layout(was) != layout(is) {
            self.breaks(name, format!("is a struct, which never changes: was {}; is {}", words(was), words(is)));
        }
    }

    fn of_enum(&mut self, name: &str, was: &Enum, is: &Enum) {
        if was.base != is.base {
            self.breaks(name, format!("was stored as {}, is stored as {}", was.base, is.base));
        }
        if was.is_flags != is.is_flags {
            self.breaks(name, String::from("has values that are bits in only one of the two"));
        }
        self.numbers(name, &was.values, &is.values);
    }

    fn of_union(&mut self, name: &str, was: &[Member], is: &[Member]) {
        let numbers =
            |members: &[Member]| members.iter().map(|it| (it.name.clone(), it.number.into())).collect::<Vec<_>>();
        self.numbers(name, &numbers(was), &numbers(is));
        for old in was {
            if let Some(new) = is.iter().find(|new| new.name == old.name && new.of != old.of) {
                self.breaks(&format!("{name}.{}", old.name), format!("was {}, is {}", old.of, new.of));
            }
        }
    }

    fn numbers(&mut self, name: &str, was: &[(String, i128)], is: &[(String, i128)]) {
        for (value, number) in was {
            let place = format!("{name}.{value}");
            match is.iter().find(|(new, _)| new == value) {
                Some((_, now)) if now == number => {}
                Some((_, now)) => self.breaks(&place, format!("was {number}, is {now}")),
                None => match is.iter().find(|(_, now)| now == number) {
                    Some((new, _)) => self.breaks(&place, format!("{number} is called {new} now: names never change")),
                    None => self.breaks(&place, format!("{number} is gone: its number stays taken")),
                },
            }
        }
        let last = was.iter().map(|(_, number)| *number).max().unwrap_or(-1);
        for (value, number) in is.iter().filter(|(new, _)| was.iter().all(|(old, _)| old != new)) {
            let place = format!("{name}.{value}");
            if was.iter().any(|(_, old)| old == number) {
                // A renamed one: told above.
            } else if *number <= last {
                self.breaks(&place, format!("is new with number {number}: new ones come last, after {last}"));
            } else {
                self.keeps(&place, format!("is new, {number}"));
            }
        }
    }
}

fn word(of: &Type) -> &'static str {
    match of {
        Type::Enum(_) => "an enum",
        Type::Union(_) => "a union",
        Type::Table(_) => "a table",
        Type::Struct(_) => "a struct",
    }
}

fn zero(kind: &Kind) -> String {
    String::from(if *kind == Kind::Scalar(super::schema::Scalar::Bool) { "false" } else { "0" })
}
