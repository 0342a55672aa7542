//! A cron and its time zone as somebody wrote them: refused with words, or its moments come one after the other.
#![no_main]

use fleetwire_common::time::Time;
use fleetwire_scheduler_core::cron::Cron;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str, u64)| {
    let (pattern, zone, at) = input;
    // Up to the year 2096.
    let from = Time::from_ms(at % 4_000_000_000_000);
    let Ok(cron) = Cron::new(pattern, zone, from) else { return };
    let mut time = from;
    for count in 0..4 {
        let Some(next) = cron.after(time) else { return };
        assert!(next > time, "{pattern} in {zone}: {next:?} after {time:?}");
        assert_eq!(cron.latest(from, next), Some(next), "{pattern} in {zone}, moment {count}");
        time = next;
    }
});
