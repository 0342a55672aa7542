//! Medians and tables. Shared with the peers' bench.

use super::load::Figure;

/// The median; NaN of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The value below which so much of the sorted values lie.
pub fn part(sorted: &[f64], part: f64) -> f64 {
    sorted.get((sorted.len() as f64 * part) as usize).copied().unwrap_or(f64::NAN)
}

/// The median of a figure's slices.
pub fn middle(figures: &[Figure]) -> Figure {
    let of = |read: fn(&Figure) -> f64| median(figures.iter().map(read).collect());
    Figure { cpu_us: of(|f| f.cpu_us), per_second: of(|f| f.per_second), in_datagram: of(|f| f.in_datagram) }
}

/// The median of what a slice of one has against the slice of the other that ran beside it, in CPU time.
pub fn ratio(over: &[Figure], under: &[Figure]) -> f64 {
    median(over.iter().zip(under).map(|(over, under)| over.cpu_us / under.cpu_us).collect())
}

/// Two significant digits or so.
pub fn short(value: f64) -> String {
    match value {
        value if value.is_nan() => "–".to_owned(),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// Messages a second.
pub fn rate(value: f64) -> String {
    match value {
        value if value.is_nan() => "–".to_owned(),
        value if value >= 1e6 => format!("{:.2} M", value / 1e6),
        value if value >= 1e4 => format!("{:.0} k", value / 1e3),
        value => format!("{value:.0}"),
    }
}
