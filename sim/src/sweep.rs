//! Running seeds: one, or many at a time.

use crate::{
    cluster::{Cluster, Outcome},
    coverage::Coverage,
    faults::Scale,
    trace::Violation,
};

/// A seed that broke a promise, with the words of its last events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed} broke a promise: {violation}")]
pub struct Failed {
    /// The seed: `fleetwire-sim --seed N --trace` shows it again; with `--standard` if it was of that scale.
    pub seed: u64,
    /// What was broken.
    pub violation: Violation,
    /// The trace, if it was asked for.
    pub trace: Vec<String>,
}

/// Runs one seed to its end, and adds what it exercised to `coverage`.
///
/// # Errors
/// The seed broke a promise.
pub fn run_covering(seed: u64, scale: Scale, coverage: &mut Coverage) -> Result<Outcome, Failed> {
    let fail = |violation| Failed { seed, violation, trace: Vec::new() };
    let mut cluster = Cluster::of_seed(seed, scale, false).map_err(fail)?;
    let outcome = cluster.run().map_err(fail)?;
    coverage.add(&cluster.world.trace.coverage);
    Ok(outcome)
}

/// Runs one seed to its end. With `readable`, a failure comes with its trace.
///
/// # Errors
/// The seed broke a promise.
pub fn run(seed: u64, scale: Scale, readable: bool) -> Result<Outcome, Failed> {
    let fail = |violation, trace: &[String]| Failed { seed, violation, trace: trace.to_vec() };
    let mut cluster = Cluster::of_seed(seed, scale, readable).map_err(|violation| fail(violation, &[]))?;
    cluster.run().map_err(|violation| fail(violation, cluster.world.trace.last_lines(usize::MAX)))
}
