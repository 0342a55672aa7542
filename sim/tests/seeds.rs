//! A fixed set of seeds, each a whole cluster with its own misfortunes, and the promise that a seed is
//! always the same story.
#![allow(clippy::expect_used)]

use fleetwire_sim::{Failed, run};

/// Runs seeds and shows the whole story of the first that breaks a promise.
fn hold(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        if let Err(Failed { seed, violation, .. }) = run(seed, false) {
            let again = run(seed, true).expect_err("promise P7: the seed fails again");
            let tail = again.trace.len().saturating_sub(80);
            let tail = again.trace.get(tail..).unwrap_or_default().join("\n");
            panic!("{tail}\nseed {seed} broke a promise: {violation}\nagain: fleetwire-sim --seed {seed} --trace");
        }
    }
}

#[test]
fn seeds_0_to_100_keep_every_promise() {
    hold(0..100);
}

#[test]
fn seeds_100_to_200_keep_every_promise() {
    hold(100..200);
}

#[test]
fn p7_a_seed_is_always_the_same_story() {
    for seed in [3, 17, 42, 77] {
        let (first, second) = (run(seed, false), run(seed, true));
        assert_eq!(first.ok(), second.ok(), "seed {seed}: with a trace or without, the same things happen");
    }
}
