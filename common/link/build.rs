//! Tells the crate when it was built: a lower bound of the time, for devices whose clock is not known
//! to be right. `SOURCE_DATE_EPOCH` (reproducible-builds.org) replaces it where builds must not differ.

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse::<u64>().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    println!("cargo:rustc-env=FLEETWIRE_BUILT_AT_S={}", given.unwrap_or_else(now));
}
