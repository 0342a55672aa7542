//! When a job is submitted again and again: `cron`, a text or a table.
//!
//! Whether the cron means anything is the scheduler's to say, whose time zones count.

use super::{
    mistake::Fault,
    section::{Field, Section, wrong_type},
};
use fleetwire_common::fb;
use std::time::Duration;
use toml::de::DeValue;

const KEYS: &[&str] = &["at", "time_zone", "overlap", "catch_up"];

/// By what cron a job is submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recurs {
    /// Minute, hour, day of the month, month, day of the week.
    pub cron: String,
    /// Its name in the IANA database; `None` = UTC.
    pub time_zone: Option<String>,
    /// What becomes of a moment at which the run before has not ended.
    pub overlap: fb::Overlap,
    /// A moment that was missed is made up for, if it is no longer ago than this.
    pub catch_up: Duration,
}

/// Reads `cron`.
pub(super) fn recurs(field: &Field<'_>) -> Result<Recurs, Fault> {
    let default = fb::ScheduleT::default();
    let catch_up = Duration::from_millis(default.catch_up_ms);
    let mut recurs = Recurs { cron: String::new(), time_zone: None, overlap: default.overlap, catch_up };
    let table = match field.value.get_ref() {
        DeValue::String(cron) => return Ok(Recurs { cron: cron.to_string(), ..recurs }),
        DeValue::Table(table) => table,
        _ => return Err(wrong_type(field.key, "a cron such as \"30 3 * * 1-5\", or a table", field.value)),
    };
    let section = Section::open("`cron`", KEYS, table, field.value.span())?;
    recurs.cron = section.field("at")?.ok_or_else(|| section.missing("at"))?.text()?.to_owned();
    if let Some(zone) = section.field("time_zone")? {
        recurs.time_zone = Some(zone.text()?.to_owned());
    }
    if let Some(overlap) = section.field("overlap")? {
        const OVERLAPS: [fb::Overlap; 3] = [fb::Overlap::Skip, fb::Overlap::Allow, fb::Overlap::Replace];
        recurs.overlap = overlap.choice(&["skip", "allow", "replace"], &OVERLAPS)?;
    }
    if let Some(catch_up) = section.field("catch_up")? {
        recurs.catch_up = Duration::from_secs(catch_up.seconds()?);
    }
    Ok(recurs)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::{super::*, *};

    fn read(line: &str) -> Result<Option<Recurs>, String> {
        let text = format!("name = 'j'\n{line}\n[[task]]\ncommand = ['true']\n");
        match parse_file(Path::new("job.toml"), &text, &mut |_| Ok(Vec::new())) {
            Ok(file) => Ok(file.recurs),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_cron_is_a_text_or_a_table() {
        let recurs = |cron: &str| Recurs {
            cron: cron.to_owned(),
            time_zone: None,
            overlap: fb::Overlap::Skip,
            catch_up: Duration::from_secs(3_600),
        };
        assert_eq!(read(""), Ok(None));
        assert_eq!(read("cron = '@daily'"), Ok(Some(recurs("@daily"))));
        let full = Recurs {
            time_zone: Some(String::from("Asia/Tokyo")),
            overlap: fb::Overlap::Replace,
            catch_up: Duration::from_secs(600),
            ..recurs("0 9 * * *")
        };
        let text = "cron = { at = '0 9 * * *', time_zone = 'Asia/Tokyo', overlap = 'replace', catch_up = '10m' }";
        assert_eq!(read(text), Ok(Some(full)));
    }

    #[test]
    fn what_is_no_cron_is_shown_where_it_stands() {
        for (line, words) in [
            ("cron = 5", "expected a cron such as"),
            ("cron = { time_zone = 'UTC' }", "`cron` has no `at`"),
            ("cron = { at = '@daily', overlap = 'skipp' }", "skipp"),
            ("cron = { at = '@daily', zone = 'UTC' }", "unknown key `zone`"),
            ("cron = { at = '@daily', catch_up = '0s' }", "catch_up"),
            ("cron = '@daily'\nstart_at = 2027-03-01T06:00:00Z", "start_at"),
        ] {
            let text = read(line).unwrap_err();
            assert!(text.contains(words), "{line}: {text}");
        }
    }
}
