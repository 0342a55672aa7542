//! Amounts of cpu, memory, gpu and storage: arithmetic that saturates, comparison in every
//! dimension, and the units that people write.

use crate::{custom::Custom, fb, limits::RESOURCES_MAX};

/// An amount in each dimension, in the units of the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resources {
    /// Millicores: 1000 = 1 core.
    pub cpu: u32,
    /// MB.
    pub memory: u32,
    /// Count.
    pub gpu: u32,
    /// GB.
    pub storage: u32,
}

impl Resources {
    /// Nothing of anything.
    pub const ZERO: Resources = Resources { cpu: 0, memory: 0, gpu: 0, storage: 0 };

    /// Reads the wire's table; absent reads as nothing. Amounts beyond [`RESOURCES_MAX`] are cut to it,
    /// so that sums over many of them stay in range.
    pub fn from_wire(spec: Option<fb::ResourceSpec<'_>>) -> Resources {
        spec.map_or(Resources::ZERO, |spec| Resources {
            cpu: spec.cpu().min(RESOURCES_MAX.cpu),
            memory: spec.memory().min(RESOURCES_MAX.memory),
            gpu: spec.gpu().min(RESOURCES_MAX.gpu),
            storage: spec.storage().min(RESOURCES_MAX.storage),
        })
    }

    /// As the wire's owned table.
    pub fn to_wire(self) -> fb::ResourceSpecT {
        self.to_wire_with(&Custom::default())
    }

    /// The same, with custom resources.
    pub fn to_wire_with(self, custom: &Custom) -> fb::ResourceSpecT {
        let Resources { cpu, memory, gpu, storage } = self;
        fb::ResourceSpecT { cpu, memory, gpu, storage, custom: custom.to_wire() }
    }

    /// This many times as much, saturating.
    pub fn times(self, count: u32) -> Resources {
        self.zip(Resources { cpu: count, memory: count, gpu: count, storage: count }, u32::saturating_mul)
    }

    /// Whether this much fits into `room` in every dimension.
    pub fn fits(self, room: Resources) -> bool {
        self.cpu <= room.cpu && self.memory <= room.memory && self.gpu <= room.gpu && self.storage <= room.storage
    }

    /// The sum, saturating.
    pub fn plus(self, other: Resources) -> Resources {
        self.zip(other, u32::saturating_add)
    }

    /// Of each the larger amount.
    pub fn or_more(self, other: Resources) -> Resources {
        self.zip(other, u32::max)
    }

    /// Of each the smaller amount.
    pub fn or_less(self, other: Resources) -> Resources {
        self.zip(other, u32::min)
    }

    /// The difference, saturating at zero.
    pub fn minus(self, other: Resources) -> Resources {
        self.zip(other, u32::saturating_sub)
    }

    /// The largest share that this takes of `capacity` in any dimension, in parts per million
    /// (dominant share, Ghodsi et al., NSDI 2011). A dimension that the capacity lacks counts as full
    /// when anything of it is asked for.
    pub fn dominant_share_ppm(self, capacity: Resources) -> u64 {
        let share = |part: u32, whole: u32| match (part, whole) {
            (0, _) => 0,
            (_, 0) => u64::MAX,
            (part, whole) => u64::from(part) * 1_000_000 / u64::from(whole),
        };
        share(self.cpu, capacity.cpu)
            .max(share(self.memory, capacity.memory))
            .max(share(self.gpu, capacity.gpu))
            .max(share(self.storage, capacity.storage))
    }

    fn zip(self, other: Resources, f: impl Fn(u32, u32) -> u32) -> Resources {
        Resources {
            cpu: f(self.cpu, other.cpu),
            memory: f(self.memory, other.memory),
            gpu: f(self.gpu, other.gpu),
            storage: f(self.storage, other.storage),
        }
    }
}

/// Sums of resources; wider than any amount, so that what was added can be taken away again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourcesSum {
    /// Millicores.
    pub cpu: u64,
    /// MB.
    pub memory: u64,
    /// Count.
    pub gpu: u64,
    /// GB.
    pub storage: u64,
}

impl ResourcesSum {
    /// Adds to it.
    pub fn add(&mut self, amount: Resources) {
        self.cpu += u64::from(amount.cpu);
        self.memory += u64::from(amount.memory);
        self.gpu += u64::from(amount.gpu);
        self.storage += u64::from(amount.storage);
    }

    /// Takes away what was added.
    pub fn subtract(&mut self, amount: Resources) {
        self.cpu -= u64::from(amount.cpu);
        self.memory -= u64::from(amount.memory);
        self.gpu -= u64::from(amount.gpu);
        self.storage -= u64::from(amount.storage);
    }

    /// Both together.
    pub fn plus(self, other: ResourcesSum) -> ResourcesSum {
        ResourcesSum {
            cpu: self.cpu + other.cpu,
            memory: self.memory + other.memory,
            gpu: self.gpu + other.gpu,
            storage: self.storage + other.storage,
        }
    }

    /// Cut to what an amount can be.
    pub fn cut(self) -> Resources {
        let cut = |sum: u64| u32::try_from(sum).unwrap_or(u32::MAX);
        Resources { cpu: cut(self.cpu), memory: cut(self.memory), gpu: cut(self.gpu), storage: cut(self.storage) }
    }

    /// What is left of a capacity, zero where there is less; and whether there is less anywhere.
    pub fn left_of(self, capacity: Resources) -> (Resources, bool) {
        let left = |sum: u64, whole: u32| u64::from(whole).checked_sub(sum).map(|left| left as u32);
        let parts = [
            left(self.cpu, capacity.cpu),
            left(self.memory, capacity.memory),
            left(self.gpu, capacity.gpu),
            left(self.storage, capacity.storage),
        ];
        let [cpu, memory, gpu, storage] = parts.map(Option::unwrap_or_default);
        (Resources { cpu, memory, gpu, storage }, parts.contains(&None))
    }
}

/// Why a text is no amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not of the form at all.
    #[error("`{found}` is not an amount of {what}: expected {expected}")]
    Form {
        /// The dimension.
        what: &'static str,
        /// What came.
        found: String,
        /// Examples of what is understood.
        expected: &'static str,
    },
    /// More than can be counted.
    #[error("`{found}` is more {what} than the largest amount, {max}")]
    TooMuch {
        /// The dimension.
        what: &'static str,
        /// What came.
        found: String,
        /// The largest amount in the wire's unit.
        max: u32,
    },
}

/// Millicores from `500m`, `2` or `1.5` (cores).
pub fn parse_cpu(text: &str) -> Result<u32, UnitError> {
    const EXPECTED: &str = "millicores such as `500m`, or cores such as `2` or `1.5`";
    let millicores = match text.strip_suffix('m') {
        Some(digits) => scaled(digits, 1, 1),
        None => scaled(text, 1_000, 1),
    };
    amount("cpu", text, millicores, EXPECTED, RESOURCES_MAX.cpu)
}

/// MB from `64MB`, `1.5GB`, `2TB`, `512MiB` or `1GiB`; fractions of a MB are rounded up.
pub fn parse_memory(text: &str) -> Result<u32, UnitError> {
    const EXPECTED: &str = "a number with a unit such as `64MB`, `1.5GB` or `512MiB`";
    amount("memory", text, bytes(text, 1_000_000), EXPECTED, RESOURCES_MAX.memory)
}

/// GB from `10GB`, `500MB` or `1TB`; fractions of a GB are rounded up.
pub fn parse_storage(text: &str) -> Result<u32, UnitError> {
    const EXPECTED: &str = "a number with a unit such as `500MB`, `10GB` or `1TB`";
    amount("storage", text, bytes(text, 1_000_000_000), EXPECTED, RESOURCES_MAX.storage)
}

fn amount(
    what: &'static str,
    text: &str,
    value: Option<u64>,
    expected: &'static str,
    max: u32,
) -> Result<u32, UnitError> {
    let value = value.ok_or_else(|| UnitError::Form { what, found: text.to_owned(), expected })?;
    match u32::try_from(value) {
        Ok(value) if value <= max => Ok(value),
        _ => Err(UnitError::TooMuch { what, found: text.to_owned(), max }),
    }
}

fn bytes(text: &str, unit: u64) -> Option<u64> {
    const UNITS: [(&str, u64); 8] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
    ];
    let (digits, scale) = UNITS.iter().find_map(|(name, scale)| Some((text.strip_suffix(name)?, *scale)))?;
    scaled(digits.trim_end(), scale, unit)
}

/// `digits` × `scale` ÷ `unit`, rounded up, for a decimal number with at most six places.
fn scaled(digits: &str, scale: u64, unit: u64) -> Option<u64> {
    let (whole, places) = digits.split_once('.').unwrap_or((digits, "0"));
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !plain(whole) || !plain(places) || places.len() > 6 || whole.len() > 15 {
        return None;
    }
    let ten = 10u128.pow(places.len() as u32);
    let value = whole.parse::<u128>().ok()? * ten + places.parse::<u128>().ok()?;
    u64::try_from((value * u128::from(scale)).div_ceil(ten * u128::from(unit))).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_as_people_write_them() {
        assert_eq!(parse_cpu("500m").unwrap(), 500);
        assert_eq!(parse_cpu("1.5").unwrap(), 1_500);
        assert_eq!(parse_memory("64MB").unwrap(), 64);
        assert_eq!(parse_memory("512MiB").unwrap(), 537);
        assert_eq!(parse_memory("1.5GB").unwrap(), 1_500);
        assert_eq!(parse_storage("500MB").unwrap(), 1);
        for wrong in ["", "m", "-1", "1e3", "500M", "1,5", "0x10"] {
            assert!(parse_cpu(wrong).is_err() && parse_memory(wrong).is_err(), "{wrong}");
        }
        assert!(matches!(parse_memory("9999999999TB"), Err(UnitError::TooMuch { .. })));
    }

    #[test]
    fn a_missing_dimension_is_full_only_when_asked_for() {
        let capacity = Resources { cpu: 1_000, memory: 100, gpu: 0, storage: 0 };
        assert_eq!(Resources { cpu: 500, memory: 10, ..Resources::ZERO }.dominant_share_ppm(capacity), 500_000);
        assert_eq!(Resources { gpu: 1, ..Resources::ZERO }.dominant_share_ppm(capacity), u64::MAX);
    }
}
