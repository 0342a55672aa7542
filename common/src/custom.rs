//! Custom resources: whatever an agent says it has some of, counted like gpus. `fpga`, `license/ansys`.
//!
//! Invariants: names are valid, sorted and unique, amounts at least 1; one of nothing takes no memory.

use crate::{
    fb,
    ids::{Name, NameError},
    limits::{CUSTOM_AMOUNT_MAX, CUSTOM_RESOURCES_MAX, NAME_BYTES_MAX},
};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Amounts of custom resources, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Custom(Option<Arc<Vec<Amount>>>);

/// A name, and how much.
pub(crate) type Amount = (Arc<str>, u32);

/// Why names and amounts are no custom resources.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum CustomError {
    #[error("resource `{name}`: {error}; parts are separated by `/`, as in `license/ansys`")]
    Name { name: String, error: NameError },
    #[error("resource `{name}` has a key of its own: write `{name} = …` beside the others")]
    BuiltIn { name: String },
    #[error("resource `{name}` stands there twice")]
    Twice { name: String },
    #[error("{amount} of resource `{name}` is more than the limit of {CUSTOM_AMOUNT_MAX}")]
    TooMuch { name: String, amount: u64 },
    #[error("{found} custom resources are more than the limit of {CUSTOM_RESOURCES_MAX}")]
    TooMany { found: usize },
    #[error("`{found}` is not a resource: expected NAME=COUNT, as in `fpga=2`")]
    Form { found: String },
}

impl Custom {
    /// Checks names and amounts; an amount of 0 is as none.
    pub fn new<'n>(pairs: impl IntoIterator<Item = (&'n str, u64)>) -> Result<Custom, CustomError> {
        let mut amounts: BTreeMap<Arc<str>, u32> = BTreeMap::new();
        for (place, (name, amount)) in pairs.into_iter().enumerate() {
            if place >= CUSTOM_RESOURCES_MAX {
                return Err(CustomError::TooMany { found: place + 1 });
            }
            check_name(name)?;
            let counted = u32::try_from(amount).ok().filter(|amount| *amount <= CUSTOM_AMOUNT_MAX);
            let Some(counted) = counted else {
                return Err(CustomError::TooMuch { name: name.to_owned(), amount });
            };
            if amounts.insert(name.into(), counted).is_some() {
                return Err(CustomError::Twice { name: name.to_owned() });
            }
        }
        Ok(amounts.into_iter().collect())
    }

    /// Reads `NAME=COUNT`, as the command line has it.
    pub fn parse(text: &str) -> Result<(String, u64), CustomError> {
        let pair = text.split_once('=').and_then(|(name, count)| Some((name.trim(), count.trim().parse().ok()?)));
        let (name, count) = pair.ok_or_else(|| CustomError::Form { found: text.to_owned() })?;
        check_name(name)?;
        Ok((name.to_owned(), count))
    }

    /// Reads the wire's.
    pub fn from_wire(spec: Option<fb::ResourceSpec<'_>>) -> Result<Custom, CustomError> {
        let Some(listed) = spec.and_then(|spec| spec.custom()) else { return Ok(Custom::default()) };
        Custom::new(listed.iter().map(|one| (one.name().unwrap_or_default(), u64::from(one.amount()))))
    }

    /// As the wire's owned tables.
    pub fn to_wire(&self) -> Option<Vec<fb::CustomResourceT>> {
        let one = |(name, amount): (&str, u32)| fb::CustomResourceT { name: Some(name.to_owned()), amount };
        (!self.is_empty()).then(|| self.iter().map(one).collect())
    }

    /// Whether there is none of anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Names and amounts, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        self.pairs().iter().map(|(name, amount)| (&**name, *amount))
    }

    pub(crate) fn pairs(&self) -> &[Amount] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    /// How much of one there is.
    pub fn amount(&self, name: &str) -> u32 {
        let pairs = self.pairs();
        let found = pairs.binary_search_by(|(known, _)| (**known).cmp(name)).ok();
        found.and_then(|place| pairs.get(place)).map_or(0, |(_, amount)| *amount)
    }

    /// What of this does not fit into `room`: the name, how much of it is wanted, and how much there is.
    pub fn lacks<'c>(&'c self, room: &Custom) -> Option<(&'c str, u32, u32)> {
        self.iter().map(|(name, amount)| (name, amount, room.amount(name))).find(|(_, wanted, there)| wanted > there)
    }

    /// Whether this much fits into `room`, of everything.
    pub fn fits(&self, room: &Custom) -> bool {
        self.lacks(room).is_none()
    }

    /// The difference, saturating at zero.
    pub fn minus(&self, other: &Custom) -> Custom {
        self.pairs().iter().map(|(name, amount)| (name.clone(), amount.saturating_sub(other.amount(name)))).collect()
    }

    /// Of each the larger amount.
    pub fn or_more(&self, other: &Custom) -> Custom {
        let mut amounts: BTreeMap<Arc<str>, u32> = self.pairs().iter().cloned().collect();
        for (name, amount) in other.pairs() {
            let known = amounts.entry(name.clone()).or_default();
            *known = (*known).max(*amount);
        }
        amounts.into_iter().collect()
    }
}

impl FromIterator<Amount> for Custom {
    /// From names that are known to be valid, in order.
    fn from_iter<I: IntoIterator<Item = Amount>>(pairs: I) -> Custom {
        let some: Vec<_> = pairs.into_iter().filter(|(_, amount)| *amount > 0).collect();
        Custom((!some.is_empty()).then(|| Arc::new(some)))
    }
}

impl fmt::Display for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.iter().map(|(name, amount)| format!("{amount} {name}")).collect();
        f.write_str(&words.join(", "))
    }
}

/// Sums of custom resources, wider than any amount, so that what was added can be taken away again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CustomSum(BTreeMap<Arc<str>, u64>);

impl CustomSum {
    /// Adds to it.
    pub fn add(&mut self, amounts: &Custom) {
        for (name, amount) in amounts.pairs() {
            *self.0.entry(name.clone()).or_default() += u64::from(*amount);
        }
    }

    /// Takes away what was added.
    pub fn subtract(&mut self, amounts: &Custom) {
        for (name, amount) in amounts.pairs() {
            if let Some(sum) = self.0.get_mut(name) {
                *sum -= u64::from(*amount);
                if *sum == 0 {
                    self.0.remove(name);
                }
            }
        }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is left of a capacity, zero where there is less; and whether there is less of anything.
    pub fn left_of(&self, capacity: &Custom) -> (Custom, bool) {
        let sum = |name: &str| self.0.get(name).copied().unwrap_or_default();
        let left = |(name, whole): &Amount| {
            let left = u64::from(*whole).saturating_sub(sum(name));
            (name.clone(), u32::try_from(left).unwrap_or(u32::MAX))
        };
        let less = self.0.iter().any(|(name, sum)| *sum > u64::from(capacity.amount(name)));
        (capacity.pairs().iter().map(left).collect(), less)
    }
}

fn check_name(name: &str) -> Result<(), CustomError> {
    if ["cpu", "memory", "gpu", "storage"].contains(&name) {
        return Err(CustomError::BuiltIn { name: name.to_owned() });
    }
    let too_long = (name.len() > NAME_BYTES_MAX).then_some(NameError::TooLong(name.len()));
    let wrong = too_long.or_else(|| name.split('/').find_map(|part| Name::new(part).err()));
    wrong.map_or(Ok(()), |error| Err(CustomError::Name { name: name.chars().take(80).collect(), error }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, u64)]) -> Custom {
        Custom::new(pairs.iter().copied()).unwrap()
    }

    #[test]
    fn names_and_amounts_are_checked() {
        assert!(of(&[("fpga", 0)]).is_empty());
        assert_eq!(of(&[("license/ansys", 4), ("fpga", 2)]).to_string(), "2 fpga, 4 license/ansys");
        for wrong in ["", "/", "a/", "a//b", "a b", "gpu", &"x".repeat(65)] {
            assert!(Custom::new([(wrong, 1)]).is_err(), "{wrong}");
        }
        assert!(matches!(Custom::new([("a", 1), ("a", 1)]), Err(CustomError::Twice { .. })));
        assert!(matches!(Custom::new([("a", u64::from(CUSTOM_AMOUNT_MAX) + 1)]), Err(CustomError::TooMuch { .. })));
        let names: Vec<String> = (0..=CUSTOM_RESOURCES_MAX).map(|number| format!("n{number}")).collect();
        let many = names.iter().map(|name| (name.as_str(), 1));
        assert!(Custom::new(many.clone().skip(1)).is_ok());
        assert_eq!(Custom::new(many), Err(CustomError::TooMany { found: CUSTOM_RESOURCES_MAX + 1 }));
        assert_eq!(Custom::parse("fpga=2"), Ok(("fpga".into(), 2)));
        assert!(["fpga", "fpga=", "fpga=-1", "a b=1", "cpu=1"].iter().all(|text| Custom::parse(text).is_err()));
    }

    #[test]
    fn what_fits_is_counted_by_name() {
        let (has, asks) = (of(&[("a", 2), ("b", 1)]), of(&[("a", 2)]));
        assert!(asks.fits(&has) && Custom::default().fits(&asks) && !has.fits(&asks));
        assert_eq!(of(&[("a", 1), ("c", 3)]).lacks(&has), Some(("c", 3, 0)));
        assert_eq!(has.minus(&of(&[("a", 1), ("b", 9)])), of(&[("a", 1)]));
        assert_eq!(has.or_more(&of(&[("b", 5), ("c", 1)])), of(&[("a", 2), ("b", 5), ("c", 1)]));
    }

    #[test]
    fn a_sum_gives_back_what_was_added_whatever_the_capacity() {
        let mut sum = CustomSum::default();
        let most = of(&[("a", u64::from(CUSTOM_AMOUNT_MAX))]);
        for _ in 0..10_000 {
            sum.add(&most);
        }
        assert_eq!(sum.left_of(&of(&[("a", 5), ("b", 2)])), (of(&[("b", 2)]), true));
        for _ in 0..10_000 {
            sum.subtract(&most);
        }
        assert!(sum.is_empty());
        assert_eq!(sum.left_of(&of(&[("a", 5)])), (of(&[("a", 5)]), false));
        sum.add(&of(&[("c", 1)]));
        assert_eq!(sum.left_of(&of(&[("a", 5)])), (of(&[("a", 5)]), true));
    }
}
