//! A hostile client's job: refused, or valid and the same after another trip over the wire.
#![no_main]

use fleetwire_common::job::JobSpec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(job) = JobSpec::from_wire(bytes) {
        assert_eq!(JobSpec::from_wire(&job.to_wire()).as_ref(), Ok(&job));
    }
});
