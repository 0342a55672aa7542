//! Conditions on an agent's labels: what they say, whether labels satisfy them, and whether anything could satisfy
//! all of a task's.
//!
//! Invariant: constraints in which [`check`] found no contradiction may still ask for what no agent is; what it calls
//! a contradiction no agent ever satisfies.

use crate::{
    fb,
    ids::Name,
    job::{JobError, bound, named},
    limits::{CONSTRAINT_VALUE_BYTES_MAX, CONSTRAINT_VALUES_MAX, PATTERN_BYTES_MAX},
};
use std::{cmp::Ordering, collections::BTreeMap, fmt};

/// One condition on an agent's labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Constraint {
    /// The label's name.
    pub label: Name,
    /// How it is compared.
    pub op: fb::ConstraintOp,
    /// With what; empty for `Exists`, `NotExists` and `In`.
    pub value: String,
    /// `In`: one of these.
    pub values: Vec<String>,
}

/// A condition on labels that ranks the agents on which a task fits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Preference {
    /// The condition.
    pub constraint: Constraint,
    /// What it adds to the rank of an agent that satisfies it; below 0 = rather not.
    pub weight: i16,
}

impl Preference {
    pub(crate) fn from_wire(task: &Name, wire: fb::Preference<'_>) -> Result<Preference, JobError> {
        let invalid =
            |what, found: String, expected| Err(JobError::Invalid { task: task.to_string(), what, found, expected });
        let Some(constraint) = wire.constraint() else {
            return invalid("preference", String::new(), "a constraint and a weight");
        };
        Ok(Preference { constraint: Constraint::from_wire(task, constraint)?, weight: wire.weight() })
    }

    pub(crate) fn to_wire(&self) -> fb::PreferenceT {
        fb::PreferenceT { constraint: Some(Box::new(self.constraint.to_wire())), weight: self.weight }
    }
}

/// Why a task's constraints are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ConstraintError {
    #[error("`{constraint}`: `{found}` is no version; expected numbers with dots between them, such as 535.2")]
    NoVersion { constraint: String, found: String },
    #[error("`{constraint}` asks for one of nothing: expected at least one value, as in `zone in [eu, us]`")]
    EmptySet { constraint: String },
    #[error("`{constraint}` is never true: no version is less than 0")]
    BelowZero { constraint: String },
    #[error("`{one}` and {others} are never true at once: leave one of them out")]
    Contradiction {
        one: String,
        /// One or more, in quotes.
        others: String,
    },
}

impl Constraint {
    /// One that compares with a single value, or with none.
    pub fn new(label: Name, op: fb::ConstraintOp, value: &str) -> Constraint {
        Constraint { label, op, value: value.to_owned(), values: Vec::new() }
    }

    /// The label has one of these values.
    pub fn one_of(label: Name, values: Vec<String>) -> Constraint {
        Constraint { label, op: fb::ConstraintOp::In, value: String::new(), values }
    }

    /// Whether labels with `value` of this constraint's label (`None` = no such label) satisfy it.
    pub fn holds(&self, value: Option<&str>) -> bool {
        use fb::ConstraintOp as Op;
        match (self.op, value) {
            (Op::NotEqual, _) => value != Some(&self.value),
            (Op::NotExists, _) => value.is_none(),
            (_, None) => false,
            (Op::Exists, Some(_)) => true,
            (Op::Equal, Some(value)) => value == self.value,
            (Op::In, Some(value)) => self.values.iter().any(|other| other == value),
            (Op::Matches, Some(value)) => value.len() <= CONSTRAINT_VALUE_BYTES_MAX && matches(&self.value, value),
            (op, Some(value)) => compare(value, &self.value).is_some_and(|order| in_range(op, order)),
        }
    }

    fn is_range(&self) -> bool {
        use fb::ConstraintOp as Op;
        matches!(self.op, Op::Less | Op::AtMost | Op::AtLeast | Op::More)
    }

    /// The values that alone could satisfy it, if they can be counted.
    fn candidates(&self) -> Option<&[String]> {
        match self.op {
            fb::ConstraintOp::Equal => Some(std::slice::from_ref(&self.value)),
            fb::ConstraintOp::In => Some(&self.values),
            _ => None,
        }
    }

    pub(crate) fn from_wire(task: &Name, wire: fb::Constraint<'_>) -> Result<Constraint, JobError> {
        let label = named("label of a constraint", wire.label())?;
        if wire.op().variant_name().is_none() {
            let (found, expected) = (wire.op().0.to_string(), "a comparison that this version knows");
            return Err(JobError::Invalid { task: task.to_string(), what: "constraint", found, expected });
        }
        let values = wire.values().into_iter().flatten().map(str::to_owned).collect();
        Ok(Constraint { label, op: wire.op(), value: wire.value().unwrap_or_default().to_owned(), values })
    }

    pub(crate) fn to_wire(&self) -> fb::ConstraintT {
        fb::ConstraintT {
            label: Some(self.label.to_string()),
            op: self.op,
            value: (!self.value.is_empty()).then(|| self.value.clone()),
            values: (!self.values.is_empty()).then(|| self.values.clone()),
        }
    }
}

/// The operators between a label and a value, as people write them; none is the beginning of one before it.
pub const OPERATORS: [(&str, fb::ConstraintOp); 8] = [
    ("!=", fb::ConstraintOp::NotEqual),
    ("<=", fb::ConstraintOp::AtMost),
    (">=", fb::ConstraintOp::AtLeast),
    ("=", fb::ConstraintOp::Equal),
    ("<", fb::ConstraintOp::Less),
    (">", fb::ConstraintOp::More),
    ("in", fb::ConstraintOp::In),
    ("matches", fb::ConstraintOp::Matches),
];

impl fmt::Display for Constraint {
    /// As people write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Constraint { label, op, value, values } = self;
        let operator = OPERATORS.iter().find(|(_, known)| known == op).map_or("?", |(text, _)| text);
        match *op {
            fb::ConstraintOp::Exists => write!(f, "{label}"),
            fb::ConstraintOp::NotExists => write!(f, "!{label}"),
            fb::ConstraintOp::In => write!(f, "{label} in [{}]", values.join(", ")),
            _ => write!(f, "{label} {operator} {value}"),
        }
    }
}

/// Bounds on one task's constraints. Whatever was ever accepted keeps to them.
pub(crate) fn check_bounds(task: &str, constraints: &[Constraint]) -> Result<(), JobError> {
    for constraint in constraints {
        bound(task, "number of values of a constraint", constraint.values.len(), CONSTRAINT_VALUES_MAX)?;
        for value in &constraint.values {
            bound(task, "bytes of a value of a constraint", value.len(), CONSTRAINT_VALUE_BYTES_MAX)?;
        }
        if constraint.op == fb::ConstraintOp::Matches {
            bound(task, "bytes of a pattern of a constraint", constraint.value.len(), PATTERN_BYTES_MAX)?;
        }
    }
    Ok(())
}

/// Refuses constraints that cannot be compared, or that are never all true.
pub fn check(constraints: &[Constraint]) -> Result<(), ConstraintError> {
    let mut by_label: BTreeMap<&Name, Vec<&Constraint>> = BTreeMap::new();
    for constraint in constraints {
        let words = || constraint.to_string();
        if constraint.op == fb::ConstraintOp::In && constraint.values.is_empty() {
            return Err(ConstraintError::EmptySet { constraint: words() });
        }
        if constraint.is_range() {
            let Some(order) = compare(&constraint.value, "0") else {
                return Err(ConstraintError::NoVersion { constraint: words(), found: constraint.value.clone() });
            };
            if constraint.op == fb::ConstraintOp::Less && order.is_eq() {
                return Err(ConstraintError::BelowZero { constraint: words() });
            }
        }
        by_label.entry(&constraint.label).or_default().push(constraint);
    }
    by_label.values().try_for_each(|of_label| check_label(of_label))
}

/// The same for those of one label.
fn check_label(constraints: &[&Constraint]) -> Result<(), ConstraintError> {
    let contradiction = |one: &Constraint, others: &[&Constraint]| {
        let others: Vec<String> = others.iter().map(|other| format!("`{other}`")).collect();
        Err(ConstraintError::Contradiction { one: one.to_string(), others: others.join(", ") })
    };
    // Where the values can be counted, what is left of them decides.
    let countable = constraints.iter().find_map(|constraint| Some((*constraint, constraint.candidates()?)));
    if let Some((counted, values)) = countable {
        let others = constraints.iter().copied().filter(|other| *other != counted);
        let removes = |other: &Constraint, value: &String| !other.holds(Some(value));
        let left = |value: &&String| others.clone().all(|other| !removes(other, value));
        if values.iter().any(|value| left(&value)) {
            return Ok(());
        }
        if let Some(alone) = others.clone().find(|other| values.iter().all(|value| removes(other, value))) {
            return contradiction(counted, &[alone]);
        }
        let all: Vec<_> = others.filter(|other| values.iter().any(|value| removes(other, value))).collect();
        return contradiction(counted, &all);
    }
    for (place, one) in constraints.iter().enumerate() {
        if let Some(other) = constraints.iter().skip(place + 1).find(|other| excludes(one, other)) {
            return contradiction(one, &[*other]);
        }
    }
    Ok(())
}

/// Whether two constraints on one label, neither of which counts its values, are certainly never true at once.
fn excludes(one: &Constraint, other: &Constraint) -> bool {
    use fb::ConstraintOp as Op;
    let absent = |constraint: &Constraint| constraint.op == Op::NotExists;
    // What is not equal may be absent; everything else needs the label.
    if absent(one) || absent(other) {
        return one.op != other.op && one.op != Op::NotEqual && other.op != Op::NotEqual;
    }
    if one.op == Op::Matches && other.op == Op::Matches {
        return patterns_exclude(&one.value, &other.value);
    }
    let (upper, lower) = match (one.op, other.op) {
        (Op::Less | Op::AtMost, Op::More | Op::AtLeast) => (one, other),
        (Op::More | Op::AtLeast, Op::Less | Op::AtMost) => (other, one),
        _ => return false,
    };
    match compare(&lower.value, &upper.value) {
        Some(Ordering::Greater) => true,
        Some(Ordering::Equal) => lower.op == Op::More || upper.op == Op::Less,
        _ => false,
    }
}

fn in_range(op: fb::ConstraintOp, order: Ordering) -> bool {
    match op {
        fb::ConstraintOp::Less => order.is_lt(),
        fb::ConstraintOp::AtMost => order.is_le(),
        fb::ConstraintOp::AtLeast => order.is_ge(),
        fb::ConstraintOp::More => order.is_gt(),
        _ => false,
    }
}

/// Compares dotted numbers part by part, as numbers; a part that is not there is 0. `None` if either is no version.
fn compare(one: &str, other: &str) -> Option<Ordering> {
    let (mut ones, mut others) = (one.split('.'), other.split('.'));
    let mut order = Ordering::Equal;
    loop {
        let (one, other) = (ones.next(), others.next());
        if one.is_none() && other.is_none() {
            return Some(order);
        }
        order = order.then(number(one.unwrap_or("0"))?.cmp(&number(other.unwrap_or("0"))?));
    }
}

fn number(part: &str) -> Option<u64> {
    part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?
}

/// Whether a text matches a pattern: `*` stands for any characters, none too, `?` for one.
fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    // Where to go on if what follows the last `*` does not match: that star takes one character more.
    let mut again: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let mut after = pattern.clone();
        match (after.next(), text.clone().next()) {
            (Some('*'), _) => {
                again = Some((after.clone(), text.clone()));
                pattern = after;
                continue;
            }
            (None, None) => return true,
            (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {
                pattern = after;
                text.next();
                continue;
            }
            _ => {}
        }
        let Some((rest, from)) = &mut again else { return false };
        if from.next().is_none() {
            return false;
        }
        (pattern, text) = (rest.clone(), from.clone());
    }
}

/// Whether two patterns begin, or end, with what differs.
fn patterns_exclude(one: &str, other: &str) -> bool {
    fn differ(one: impl Iterator<Item = char>, other: impl Iterator<Item = char>) -> bool {
        let plain = |letter: &char| *letter != '*';
        let mut pairs = one.take_while(plain).zip(other.take_while(plain));
        pairs.any(|(one, other)| one != other && one != '?' && other != '?')
    }
    differ(one.chars(), other.chars()) || differ(one.chars().rev(), other.chars().rev())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use fb::ConstraintOp as Op;

    fn on(op: Op, value: &str) -> Constraint {
        Constraint::new(Name::new("l").unwrap(), op, value)
    }

    fn one_of(values: &[&str]) -> Constraint {
        Constraint::one_of(Name::new("l").unwrap(), values.iter().map(|value| (*value).to_owned()).collect())
    }

    #[test]
    fn sets_patterns_and_versions_hold_as_they_are_read() {
        let cases = [
            (one_of(&["eu", "us"]), vec!["eu", "us"], vec!["", "e", "eu, us"]),
            (
                on(Op::Matches, "rtx-?0*0"),
                vec!["rtx-400", "rtx-4090", "rtx-30 00"],
                vec!["rtx-40", "rtx-0", "a rtx-400"],
            ),
            (on(Op::Matches, "*"), vec!["", "x"], vec![]),
            (on(Op::Matches, "*ab*ab"), vec!["abab", "abxabab", "éabab"], vec!["ab", "aab", "ababx"]),
            (on(Op::Matches, "??"), vec!["éé", "ab"], vec!["a", "abc"]),
            (
                on(Op::AtLeast, "535.2"),
                vec!["535.2", "535.10", "536", "535.2.0.1", "0535.2"],
                vec!["535", "535.1.9", "x"],
            ),
            (
                on(Op::More, "535.2"),
                vec!["535.2.1"],
                vec!["535.2", "535.2.0", "535.02", "v536", "536.", "-1", "", "+9"],
            ),
            (
                on(Op::Less, "2.10"),
                vec!["2.9.99", "1", "0"],
                vec!["2.10", "2.10.0", "3", "2.x", "1.99999999999999999999"],
            ),
            (on(Op::AtMost, "2"), vec!["2.0", "1.9"], vec!["2.0.1", "2.1"]),
        ];
        for (constraint, good, bad) in cases {
            assert!(good.iter().all(|value| constraint.holds(Some(value))), "{constraint} {good:?}");
            assert!(bad.iter().all(|value| !constraint.holds(Some(value))), "{constraint} {bad:?}");
            assert!(!constraint.holds(None), "{constraint}");
        }
        let long = "x".repeat(CONSTRAINT_VALUE_BYTES_MAX + 1);
        assert!(!on(Op::Matches, "*").holds(Some(&long)));
    }

    #[test]
    fn what_is_never_true_is_refused_and_named() {
        let refused = |constraints: &[Constraint]| check(constraints).unwrap_err().to_string();
        let never =
            |one: &str, others: &str| format!("`{one}` and {others} are never true at once: leave one of them out");
        let (eu, us) = (on(Op::Equal, "eu"), on(Op::Equal, "us"));
        assert_eq!(refused(&[eu.clone(), us.clone()]), never("l = eu", "`l = us`"));
        assert_eq!(refused(&[on(Op::NotExists, ""), eu.clone()]), never("l = eu", "`!l`"));
        assert_eq!(refused(&[on(Op::AtLeast, "2"), on(Op::Less, "1")]), never("l >= 2", "`l < 1`"));
        assert_eq!(refused(&[on(Op::Less, "2.0"), on(Op::AtLeast, "2")]), never("l < 2.0", "`l >= 2`"));
        assert_eq!(refused(&[on(Op::Matches, "a*"), on(Op::Matches, "b*")]), never("l matches a*", "`l matches b*`"));
        assert_eq!(refused(&[on(Op::Matches, "*a"), on(Op::Matches, "*?b")]), never("l matches *a", "`l matches *?b`"));
        assert_eq!(refused(&[on(Op::Exists, ""), on(Op::NotExists, "")]), never("l", "`!l`"));
        assert_eq!(refused(&[on(Op::Matches, "x*"), one_of(&["a", "b"])]), never("l in [a, b]", "`l matches x*`"));
        let (not_a, not_b) = (on(Op::NotEqual, "a"), on(Op::NotEqual, "b"));
        assert_eq!(
            refused(&[not_a, one_of(&["a", "b"]), on(Op::NotEqual, "c"), not_b]),
            never("l in [a, b]", "`l != a`, `l != b`")
        );
        assert_eq!(refused(&[on(Op::Less, "0.0")]), "`l < 0.0` is never true: no version is less than 0");
        assert!(refused(&[on(Op::AtMost, "new")]).starts_with("`l <= new`: `new` is no version; expected numbers"));
        assert!(refused(&[one_of(&[])]).starts_with("`l in []` asks for one of nothing"));
    }

    #[test]
    fn what_may_be_true_is_taken() {
        let fine: [&[Constraint]; 8] = [
            &[on(Op::Equal, "eu"), on(Op::Equal, "eu"), on(Op::NotEqual, "us"), one_of(&["us", "eu"])],
            &[on(Op::AtLeast, "2"), on(Op::AtMost, "2.0")],
            &[on(Op::More, "2"), on(Op::Less, "2.0.1")],
            &[on(Op::NotExists, ""), on(Op::NotEqual, "x"), on(Op::NotExists, "")],
            &[on(Op::Matches, "a*"), on(Op::Matches, "*b"), on(Op::Matches, "?b*")],
            &[one_of(&["1.9", "2.1"]), on(Op::AtLeast, "2")],
            &[on(Op::Exists, ""), on(Op::AtMost, "0")],
            &[],
        ];
        for constraints in fine {
            assert_eq!(check(constraints), Ok(()), "{constraints:?}");
        }
    }
}
