//! The moments of a cron: minute, hour, day of the month, month and day of the week, by the clock on the wall of a time zone.
//!
//! Where that clock is put forward, a cron of one minute and one hour that falls into the gap comes right after it, and where it
//! is put back, such a one comes once; of lists, ranges and steps what falls into the gap is left out, and what comes twice is
//! heeded twice (croner's rules). The zones are those of the IANA database that this build carries: nothing is read from the machine.

use croner::{
    errors::CronError,
    parser::{CronParser, Seconds, Year},
};
use fleetwire_common::time::Time;
use jiff::{
    Timestamp,
    tz::{TimeZone, TimeZoneDatabase},
};

use crate::{
    limits::{CRON_AHEAD_MAX, CRON_BYTES_MAX},
    schedules::ScheduleError,
};

/// When something is to happen, again and again.
#[derive(Clone, Debug)]
pub struct Cron {
    pattern: croner::Cron,
    zone: TimeZone,
}

impl Cron {
    /// Reads a cron and the name of its time zone, an empty one being UTC, for what is near `now`: without years of its own a
    /// pattern that never comes, or a mistaken one, would be looked for up to the year 5000.
    ///
    /// # Errors
    /// [`ScheduleError::Cron`], [`ScheduleError::Zone`].
    pub fn new(pattern: &str, zone: &str, now: Time) -> Result<Cron, ScheduleError> {
        let wrong = |found: &str, why: String| ScheduleError::Cron { found: found.to_owned(), why };
        let known = |c: char| c.is_ascii_alphanumeric() || " *,-/#@?".contains(c);
        if pattern.len() > CRON_BYTES_MAX || !pattern.chars().all(known) {
            let found: String = pattern.chars().take(CRON_BYTES_MAX).collect();
            return Err(wrong(
                &found,
                format!("letters, digits, spaces and * , - / # ? @ are known, {CRON_BYTES_MAX} of them at most"),
            ));
        }
        let fields = match NICKNAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(pattern.trim())) {
            Some((_, fields)) => fields,
            None => pattern,
        };
        let count = fields.split_ascii_whitespace().count();
        if count != 5 {
            return Err(wrong(pattern, format!("it has {count} fields")));
        }
        // The library passes over these, and then finds no minute or hour that ever comes.
        if fields.split_ascii_whitespace().any(|field| field.split(',').any(str::is_empty)) {
            return Err(wrong(pattern, String::from("a list has an empty place")));
        }
        let second = i64::try_from(now.as_ms() / 1_000).unwrap_or(i64::MAX);
        let year = Timestamp::from_second(second).unwrap_or(Timestamp::MAX).to_zoned(TimeZone::UTC).year();
        let near = format!("0 {fields} {}-{}", year.saturating_sub(1), year.saturating_add(YEARS_AHEAD));
        let parser = CronParser::builder().seconds(Seconds::Required).year(Year::Required).build();
        let parsed = parser.parse(&near).map_err(|error| wrong(pattern, in_words(&error)))?;
        let utc = zone.is_empty().then_some(TimeZone::UTC);
        let found = utc.or_else(|| TimeZoneDatabase::bundled().get(zone).ok());
        let zone =
            found.ok_or_else(|| ScheduleError::Zone { found: fleetwire_common::message::cut(zone).to_owned() })?;
        Ok(Cron { pattern: parsed, zone })
    }

    /// The first moment after a time; `None` if there is none for years.
    pub fn after(&self, time: Time) -> Option<Time> {
        // Moments are whole seconds: of those after a part of one, none lies within it.
        let second = i64::try_from(time.as_ms() / 1_000).ok()?;
        let time_there = Timestamp::from_second(second).ok()?.to_zoned(self.zone.clone());
        let moment = self.pattern.find_next_occurrence(&time_there, false).ok()?;
        let moment = Time::from_ms(u64::try_from(moment.timestamp().as_second()).ok()?.checked_mul(1_000)?);
        (moment.since(time) <= CRON_AHEAD_MAX).then_some(moment)
    }

    /// The last moment after `from` and not after `until`.
    pub fn latest(&self, from: Time, until: Time) -> Option<Time> {
        std::iter::successors(self.after(from), |moment| self.after(*moment))
            .take_while(|moment| *moment <= until)
            .last()
    }
}

/// The library's words, without what they are about.
fn in_words(error: &CronError) -> String {
    match error {
        CronError::InvalidPattern(why) | CronError::IllegalCharacters(why) | CronError::ComponentError(why) => {
            let why = why.trim_end_matches('.');
            why.chars().take(1).flat_map(char::to_lowercase).chain(why.chars().skip(1)).collect()
        }
        other => other.to_string(),
    }
}

/// What stands for five fields.
const NICKNAMES: [(&str, &str); 5] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
];

/// Moments beyond are none, whatever the year before they are looked for.
const YEARS_AHEAD: i16 = 10;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use jiff::civil::{DateTime, date};

    fn moments(pattern: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let from: Timestamp = from.parse().unwrap();
        let first = Time(u64::try_from(from.as_microsecond()).unwrap());
        let cron = Cron::new(pattern, zone, first).unwrap();
        let after = std::iter::successors(cron.after(first), |moment| cron.after(*moment));
        after.take(count).map(|at| Timestamp::from_millisecond(at.as_ms() as i64).unwrap().to_string()).collect()
    }

    #[test]
    fn moments_are_those_on_the_wall_of_their_zone() {
        assert_eq!(
            moments("30 3 * * 1-5", "", "2026-11-27T03:29:59.5Z", 3),
            ["2026-11-27T03:30:00Z", "2026-11-30T03:30:00Z", "2026-12-01T03:30:00Z"]
        );
        assert_eq!(moments("30 3 * * *", "", "2026-11-27T03:30:00.5Z", 1), ["2026-11-28T03:30:00Z"]);
        assert_eq!(moments("0 9 * * *", "asia/Kolkata", "2026-01-01T00:00:00Z", 1), ["2026-01-01T03:30:00Z"]);
        assert_eq!(moments("0 12 29 2 *", "UTC", "2026-01-01T00:00:00Z", 1), ["2028-02-29T12:00:00Z"]);
        assert_eq!(moments("@daily", "", "2026-01-01T00:00:00Z", 1), ["2026-01-02T00:00:00Z"]);
        assert_eq!(moments("0 0 L * *", "", "2026-02-01T00:00:00Z", 1), ["2026-02-28T00:00:00Z"]);
    }

    #[test]
    fn a_clock_that_is_put_forward_or_back_neither_doubles_nor_loses_one_time_of_day() {
        // In Amsterdam 02:00 to 03:00 is left out on the 29th of March 2026, and comes twice on the 25th of October.
        assert_eq!(
            moments("30 2 * * *", "Europe/Amsterdam", "2026-03-28T12:00:00Z", 2),
            ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
        );
        assert_eq!(
            moments("30 2 * * *", "Europe/Amsterdam", "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
        // Of several, what the clock shows.
        assert_eq!(
            moments("0 2,14 * * *", "Europe/Amsterdam", "2026-03-28T14:00:00Z", 2),
            ["2026-03-29T12:00:00Z", "2026-03-30T00:00:00Z"]
        );
        assert_eq!(
            moments("0 2,14 * * *", "Europe/Amsterdam", "2026-10-24T14:00:00Z", 3),
            ["2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T13:00:00Z"]
        );
    }

    #[test]
    fn the_latest_of_many_is_found() {
        let at =
            |date: DateTime| Time::from_ms(date.to_zoned(TimeZone::UTC).unwrap().timestamp().as_millisecond() as u64);
        let (from, until) = (at(date(2026, 5, 1).at(0, 0, 0, 0)), at(date(2026, 5, 1).at(1, 44, 59, 0)));
        let cron = Cron::new("*/15 * * * *", "", from).unwrap();
        assert_eq!(cron.latest(from, until), Some(at(date(2026, 5, 1).at(1, 30, 0, 0))));
        assert_eq!(cron.latest(from, at(date(2026, 5, 1).at(0, 14, 59, 0))), None);
    }

    #[test]
    fn what_is_no_cron_is_refused_with_what_was_expected() {
        let now = Time::from_ms(1_800_000_000_000);
        let refused = |pattern: &str, zone: &str| Cron::new(pattern, zone, now).unwrap_err().to_string();
        for (pattern, why) in [
            ("", "it has 0 fields"),
            ("0 3 * *", "it has 4 fields"),
            ("0 0 3 * * *", "it has 6 fields"),
            ("61 3 * * *", "number out of bounds; expected five fields"),
            (", 3 * * *", "a list has an empty place"),
            ("0 1,,2 * * *", "a list has an empty place"),
            ("0 3 * * 1-5,", "a list has an empty place"),
            ("0 3 * * fri-mon", "expected five fields"),
            ("0 3 * * frühling", "letters, digits"),
            ("@sometimes", "it has 1 fields"),
            (&"1".repeat(1 << 20), "at most"),
        ] {
            let text = refused(pattern, "");
            assert!(text.contains(why) && text.len() < 600, "{pattern}: {text}");
        }
        assert!(refused("0 3 * * *", "Europe/Atlantis").contains("IANA"));
        for never in ["0 0 30 2 *", "0 0 * * L", "0 0 31 4,6 *"] {
            assert_eq!(Cron::new(never, "", now).unwrap().after(now), None, "{never}");
        }
    }
}
