//! Arbitrary bytes from the network: refused with a typed error, never a panic.
#![no_main]

use fleetwire_common::envelope::{
    Opener,
    keys::{Direction, Secret, plain_key},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut opener = Opener::new(plain_key(&Secret::new([7; 32]), Direction::ToScheduler), 0);
    let opened = opener.open(bytes, 0, 0, u64::MAX);
    assert!(opened.is_err(), "nobody can guess a tag");
});
