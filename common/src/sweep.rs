//! Parameter sweeps: an array whose tasks differ in the values of some parameters (docs/jobs.md#parameter-sweeps).
//!
//! Invariant: only the lists are kept, never their combinations; a sweep that was checked has as many of these as its entry
//! has tasks, and each has its place: index 0 has the first values, and of a product the last list turns fastest.

use crate::{
    fb,
    job::{JobError, TaskSpec, bound},
    limits::{ENVIRONMENT_MAX, PARAMETERS_BYTES_MAX, SWEEP_AXES_MAX, SWEEP_VALUES_MAX, VALUE_BYTES_MAX},
};
use std::collections::BTreeSet;

/// The lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// At least one.
    pub axes: Vec<Axis>,
    /// Each list's i-th value together; without it, every value with all others.
    pub zip: bool,
}

/// A parameter and its values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Axis {
    /// The parameter.
    pub name: String,
    /// At least one.
    pub values: Vec<Value>,
}

/// One value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Value {
    /// A text, or the JSON of anything else.
    pub text: String,
    /// Whether it is a text.
    pub quoted: bool,
}

impl Sweep {
    /// How many combinations there are; `None` if the lists that are to be zipped differ in their lengths.
    pub fn count(&self) -> Option<u64> {
        let mut lengths = self.axes.iter().map(|axis| axis.values.len() as u64);
        match self.zip {
            true => lengths.next().filter(|first| lengths.all(|other| other == *first)),
            false => Some(lengths.fold(1, u64::saturating_mul)),
        }
    }

    /// The combination of that index.
    pub fn at(&self, index: u32) -> Vec<(&Axis, &Value)> {
        let mut rest = index as usize;
        let mut found = Vec::with_capacity(self.axes.len());
        for axis in self.axes.iter().rev() {
            let length = axis.values.len().max(1);
            let place = if self.zip { rest } else { rest % length };
            found.extend(axis.values.get(place).map(|value| (axis, value)));
            rest = if self.zip { rest } else { rest / length };
        }
        found.reverse();
        found
    }

    /// Makes a spec that of one task: its values are among its parameters and in its environment.
    pub fn apply(&self, index: u32, spec: &mut TaskSpec) {
        let own = spec.parameters.trim().strip_suffix('}').map_or("{", str::trim_end);
        let mut parameters = own.to_owned();
        for (axis, value) in self.at(index) {
            let comma = if parameters.ends_with('{') { "" } else { "," };
            parameters.push_str(&format!("{comma}\"{}\":{}", axis.name, value.to_json()));
            spec.environment.push((axis.variable(), value.text.clone()));
        }
        parameters.push('}');
        spec.parameters = parameters;
        spec.sweep = None;
    }

    pub(crate) fn check(&self, spec: &TaskSpec) -> Result<(), JobError> {
        let name = spec.name.as_str();
        let invalid = |what, found: &str, expected| {
            Err(JobError::Invalid { task: name.to_owned(), what, found: found.chars().take(80).collect(), expected })
        };
        bound(name, "number of sweep parameters", self.axes.len(), SWEEP_AXES_MAX)?;
        let values = self.axes.iter().map(|axis| axis.values.len()).sum();
        bound(name, "number of sweep values", values, SWEEP_VALUES_MAX)?;
        if self.axes.is_empty() {
            return invalid("sweep", "", "at least one parameter");
        }
        let variables = spec.environment.len() + self.axes.len();
        bound(name, "number of environment variables", variables, ENVIRONMENT_MAX)?;
        let mut seen: BTreeSet<String> = spec.environment.iter().map(|(variable, _)| variable.clone()).collect();
        let mut bytes = spec.parameters.len() + 2;
        for axis in &self.axes {
            let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
            let begins = axis.name.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_');
            if !begins || !axis.name.chars().all(plain) || axis.name.len() > 64 {
                return invalid("sweep", &axis.name, "a name of at most 64 letters, digits and `_`, no digit first");
            }
            if !seen.insert(axis.variable()) {
                return invalid("sweep", &axis.name, "names that differ in more than their case");
            }
            if axis.values.is_empty() {
                return invalid("sweep", &axis.name, "a list of at least one value for each parameter");
            }
            for value in &axis.values {
                bound(name, "bytes of a sweep value", value.text.len(), VALUE_BYTES_MAX)?;
                if value.text.contains('\0') {
                    return invalid("sweep", &value.text, "no NUL byte");
                }
            }
            // Escaping takes at most six bytes for one.
            let longest = axis.values.iter().map(|value| value.text.len()).max().unwrap_or_default();
            bytes += axis.name.len() + 6 + 6 * longest;
        }
        bound(name, "bytes of parameters", bytes, PARAMETERS_BYTES_MAX)?;
        let parameters = spec.parameters.trim();
        let is_object = parameters.starts_with('{') && parameters.ends_with('}');
        if !parameters.is_empty() && !is_object {
            return invalid("parameters", parameters, "an object, to which a sweep can add");
        }
        match self.count() {
            None => invalid("sweep", "zip", "lists of one length, to be zipped"),
            Some(count) if count != u64::from(spec.count) => {
                let expected = "as many tasks as there are combinations: 1 to 1,000,000";
                invalid("sweep", &format!("of {count} combinations and {} tasks", spec.count), expected)
            }
            Some(_) => Ok(()),
        }
    }

    pub(crate) fn from_wire(wire: fb::Sweep<'_>) -> Sweep {
        let axis = |axis: fb::SweepAxis<'_>| {
            let mut quoted = axis.quoted().into_iter().flatten();
            let values = axis.values().into_iter().flatten().take(SWEEP_VALUES_MAX + 1);
            let values = values.map(|text| Value { text: text.to_owned(), quoted: quoted.next().unwrap_or(false) });
            Axis { name: axis.name().unwrap_or_default().to_owned(), values: values.collect() }
        };
        let axes = wire.axes().into_iter().flatten().take(SWEEP_AXES_MAX + 1);
        Sweep { axes: axes.map(axis).collect(), zip: wire.zip() }
    }

    pub(crate) fn to_wire(&self) -> fb::SweepT {
        let axis = |axis: &Axis| fb::SweepAxisT {
            name: Some(axis.name.clone()),
            values: Some(axis.values.iter().map(|value| value.text.clone()).collect()),
            quoted: Some(axis.values.iter().map(|value| value.quoted).collect()),
        };
        fb::SweepT { axes: Some(self.axes.iter().map(axis).collect()), zip: self.zip }
    }
}

impl Axis {
    /// The environment variable in which a task finds its value.
    pub fn variable(&self) -> String {
        format!("FLEETWIRE_PARAM_{}", self.name.to_ascii_uppercase())
    }
}

impl Value {
    fn to_json(&self) -> String {
        if !self.quoted {
            return self.text.clone();
        }
        let mut json = String::from("\"");
        for letter in self.text.chars() {
            match letter {
                '"' | '\\' => json.extend(['\\', letter]),
                control if control < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(control))),
                other => json.push(other),
            }
        }
        json.push('"');
        json
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn axis(name: &str, values: &[&str], quoted: bool) -> Axis {
        let value = |text: &&str| Value { text: (*text).to_owned(), quoted };
        Axis { name: name.into(), values: values.iter().map(value).collect() }
    }

    fn spec(sweep: &Sweep, parameters: &str) -> TaskSpec {
        let count = u32::try_from(sweep.count().unwrap()).unwrap();
        let sweep = Some(Box::new(sweep.clone()));
        TaskSpec {
            command: "x".into(),
            count,
            array: true,
            parameters: parameters.into(),
            sweep,
            ..TaskSpec::default()
        }
    }

    fn of(sweep: &Sweep, index: u32, parameters: &str) -> (String, Vec<String>) {
        let mut spec = spec(sweep, parameters);
        sweep.apply(index, &mut spec);
        assert_eq!(spec.sweep, None);
        (spec.parameters, spec.environment.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
    }

    #[test]
    fn every_combination_has_its_index() {
        let product = Sweep {
            axes: vec![axis("lr", &["0.1", "0.01"], false), axis("Seed", &["1", "2", "3"], false)],
            zip: false,
        };
        let all: BTreeSet<String> = (0..6).map(|index| of(&product, index, "").0).collect();
        assert_eq!((product.count(), all.len()), (Some(6), 6));
        assert_eq!(of(&product, 0, "").0, r#"{"lr":0.1,"Seed":1}"#);
        let (parameters, environment) = of(&product, 4, r#"{"deep":{"a":1} }"#);
        assert_eq!(parameters, r#"{"deep":{"a":1},"lr":0.01,"Seed":2}"#);
        assert_eq!(environment, ["FLEETWIRE_PARAM_LR=0.01", "FLEETWIRE_PARAM_SEED=2"]);
        let zip = Sweep { axes: vec![axis("a", &["x\"\n", "y"], true), axis("b", &["1", "[2]"], false)], zip: true };
        assert_eq!(zip.count(), Some(2));
        assert_eq!(of(&zip, 0, "{}").0, "{\"a\":\"x\\\"\\u000a\",\"b\":1}");
        assert_eq!(of(&zip, 1, "{}").0, r#"{"a":"y","b":[2]}"#);
        let wire = spec(&zip, "{}");
        let job = crate::job::JobSpec::new(wire.name.clone(), vec![wire], 60).unwrap();
        assert_eq!(crate::job::JobSpec::from_wire(&job.to_wire()).unwrap(), job);
    }

    #[test]
    fn what_cannot_be_swept_is_refused() {
        let check = |axes: Vec<Axis>, zip, count| {
            let sweep = Sweep { axes, zip };
            sweep.check(&TaskSpec { count, ..TaskSpec::default() })
        };
        let two = || axis("a", &["1", "2"], false);
        assert_eq!(check(vec![two()], false, 2), Ok(()));
        for (axes, zip, count) in [
            (vec![two()], false, 3),
            (vec![two(), axis("b", &["1"], false)], true, 2),
            (vec![two(), axis("A", &["1"], false)], false, 2),
            (vec![axis("a b", &["1"], false)], false, 1),
            (vec![axis("1a", &["1"], false)], false, 1),
            (vec![axis("a", &[], false)], false, 0),
            (vec![], false, 1),
            (vec![axis("a", &["x\0"], true)], false, 1),
            (vec![axis("a", &[&"x".repeat(30_000)], true)], false, 1),
        ] {
            assert!(check(axes.clone(), zip, count).is_err(), "{axes:?}");
        }
        let sweep = Sweep { axes: vec![two()], zip: false };
        let no_object = TaskSpec { count: 2, parameters: "[1]".into(), ..TaskSpec::default() };
        assert!(sweep.check(&no_object).is_err());
    }
}
