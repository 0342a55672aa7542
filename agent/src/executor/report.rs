//! Report lines: how a task, in any language, tells its progress and its metrics.
//!
//! A task writes lines of UTF-8 text to the file descriptor whose number is in the environment
//! variable `FLEETWIRE_REPORT_FD`:
//!
//! ```text
//! progress 0.42 words counted so far
//! metric words 118231
//! ```
//!
//! * `progress FRACTION [NOTE…]`: a number from 0 to 1, and optionally a note for people.
//! * `metric NAME VALUE`: a name of at most 64 bytes without spaces, and a finite number.
//!
//! From a shell: `echo "progress 0.5" >&"$FLEETWIRE_REPORT_FD"`. From Python:
//! `report = os.fdopen(int(os.environ["FLEETWIRE_REPORT_FD"]), "w", buffering=1)`.
//!
//! A line of more than 1,024 bytes, one with control characters, and one that says anything else
//! is refused and counted, never fatal. The latest progress and the latest value of at most 64
//! metrics are kept; they reach the agent at most ten times a second. The parser is pure.

use super::limits::{METRIC_NAME_BYTES_MAX, METRICS_MAX, REPORT_INTERVAL_US, REPORT_LINE_BYTES_MAX};
use super::record::Report;

/// What one line says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ReportLine<'a> {
    /// A fraction from 0 to 1 and a note, which may be empty.
    Progress {
        /// 0.0 to 1.0.
        fraction: f32,
        /// The task's own words.
        note: &'a str,
    },
    /// A metric's value from now on.
    Metric {
        /// At most 64 bytes, no white space.
        name: &'a str,
        /// Finite.
        value: f64,
    },
}

/// Why a line was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineRefused {
    /// Longer than a line may be.
    #[error("a line has at most {REPORT_LINE_BYTES_MAX} bytes")]
    TooLong,
    /// Not UTF-8, or with control characters.
    #[error("a line is UTF-8 text without control characters")]
    NotText,
    /// Neither `progress` nor `metric`.
    #[error("a line begins with `progress` or `metric`")]
    UnknownVerb,
    /// Not a number from 0 to 1.
    #[error("progress is a number from 0 to 1")]
    Fraction,
    /// Missing, or longer than a name may be.
    #[error("a metric's name has 1 to {METRIC_NAME_BYTES_MAX} bytes")]
    MetricName,
    /// Missing, not a finite number, or followed by something else.
    #[error("a metric's value is one finite number")]
    MetricValue,
    /// A new name although the most are in use.
    #[error("a task has at most {METRICS_MAX} metrics")]
    TooManyMetrics,
}

/// Parses one line without its newline. `Ok(None)` is an empty line, which means nothing.
pub fn parse_line(line: &[u8]) -> Result<Option<ReportLine<'_>>, LineRefused> {
    if line.len() > REPORT_LINE_BYTES_MAX {
        return Err(LineRefused::TooLong);
    }
    let text = std::str::from_utf8(line).map_err(|_| LineRefused::NotText)?;
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err(LineRefused::NotText);
    }
    let text = text.trim();
    let (verb, rest) = split_word(text);
    match verb {
        "" => Ok(None),
        "progress" => {
            let (number, note) = split_word(rest);
            let fraction: f32 = number.parse().map_err(|_| LineRefused::Fraction)?;
            if !(0.0..=1.0).contains(&fraction) {
                return Err(LineRefused::Fraction);
            }
            Ok(Some(ReportLine::Progress { fraction, note }))
        }
        "metric" => {
            let (name, number) = split_word(rest);
            if name.is_empty() || name.len() > METRIC_NAME_BYTES_MAX {
                return Err(LineRefused::MetricName);
            }
            let value: f64 = number.parse().map_err(|_| LineRefused::MetricValue)?;
            if !value.is_finite() {
                return Err(LineRefused::MetricValue);
            }
            Ok(Some(ReportLine::Metric { name, value }))
        }
        _ => Err(LineRefused::UnknownVerb),
    }
}

fn split_word(text: &str) -> (&str, &str) {
    match text.split_once([' ', '\t']) {
        Some((word, rest)) => (word, rest.trim_start()),
        None => (text, ""),
    }
}

/// The latest that a task reported, and what of it the agent has not been told yet.
#[derive(Debug, Default)]
pub struct Reports {
    partial: Vec<u8>,
    skipping: bool,
    latest: Report,
    /// For each metric of `latest`: it changed since the last report.
    changed: Vec<bool>,
    progress_changed: bool,
    due: bool,
    sent_us: Option<u64>,
}

impl Reports {
    /// Takes what was read from the task, cut anywhere.
    pub fn on_bytes(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end);
            self.on_piece(line);
            self.on_newline();
            rest = after.get(1..).unwrap_or_default();
        }
        self.on_piece(rest);
    }

    /// The task can write no more: a last line without a newline counts too.
    pub fn on_end(&mut self) {
        self.on_newline();
    }

    /// When the next report may go to the agent, boot-clock µs; `None` when nothing is new.
    pub fn due_at(&self) -> Option<u64> {
        self.due.then(|| self.sent_us.map_or(0, |sent| sent.saturating_add(REPORT_INTERVAL_US)))
    }

    /// What changed since the last [`Reports::on_sent`].
    pub fn news(&self) -> Report {
        let metrics = self.latest.metrics.iter().zip(&self.changed);
        Report {
            progress: self.latest.progress.filter(|_| self.progress_changed),
            note: if self.progress_changed { self.latest.note.clone() } else { String::new() },
            metrics: metrics.filter(|(_, changed)| **changed).map(|(metric, _)| metric.clone()).collect(),
            refused: self.latest.refused,
        }
    }

    /// The news reached the agent at `now_us`.
    pub fn on_sent(&mut self, now_us: u64) {
        self.sent_us = Some(now_us);
        self.due = false;
        self.progress_changed = false;
        self.changed.fill(false);
    }

    /// The latest of everything.
    pub fn latest(&self) -> &Report {
        &self.latest
    }

    fn on_piece(&mut self, piece: &[u8]) {
        if self.skipping {
            return;
        }
        if self.partial.len() + piece.len() > REPORT_LINE_BYTES_MAX {
            self.partial.clear();
            self.skipping = true;
            return;
        }
        self.partial.extend_from_slice(piece);
    }

    fn on_newline(&mut self) {
        if std::mem::take(&mut self.skipping) {
            self.latest.refused += 1;
            return;
        }
        let line = std::mem::take(&mut self.partial);
        let kept = parse_line(&line).and_then(|said| said.map_or(Ok(()), |said| self.apply(said)));
        if kept.is_err() {
            self.latest.refused += 1;
        }
        self.partial = line;
        self.partial.clear();
    }

    fn apply(&mut self, line: ReportLine<'_>) -> Result<(), LineRefused> {
        match line {
            ReportLine::Progress { fraction, note } => {
                self.latest.progress = Some(fraction);
                self.latest.note.clear();
                self.latest.note.push_str(note);
                self.progress_changed = true;
            }
            ReportLine::Metric { name, value } => {
                let known = self.latest.metrics.iter().position(|(other, _)| other == name);
                let index = match known {
                    Some(index) => index,
                    None if self.latest.metrics.len() < METRICS_MAX => {
                        self.latest.metrics.push((name.to_owned(), value));
                        self.changed.push(true);
                        self.latest.metrics.len() - 1
                    }
                    None => return Err(LineRefused::TooManyMetrics),
                };
                if let Some(metric) = self.latest.metrics.get_mut(index) {
                    metric.1 = value;
                }
                if let Some(changed) = self.changed.get_mut(index) {
                    *changed = true;
                }
            }
        }
        self.due = true;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn progress(line: &str) -> Result<Option<ReportLine<'_>>, LineRefused> {
        parse_line(line.as_bytes())
    }

    #[test]
    fn lines_say_progress_and_metrics() {
        assert_eq!(progress("progress 0.5"), Ok(Some(ReportLine::Progress { fraction: 0.5, note: "" })));
        assert_eq!(
            progress("progress  1  all\tdone  \r"),
            Ok(Some(ReportLine::Progress { fraction: 1.0, note: "all\tdone" }))
        );
        assert_eq!(progress("metric words -3e2"), Ok(Some(ReportLine::Metric { name: "words", value: -300.0 })));
        assert_eq!(progress("  "), Ok(None));
        assert_eq!(progress(""), Ok(None));
    }

    #[test]
    fn wrong_lines_are_refused_with_their_reason() {
        for line in ["progress", "progress NaN", "progress inf", "progress -0.01", "progress 1.01", "progress 50%"] {
            assert_eq!(progress(line), Err(LineRefused::Fraction), "{line}");
        }
        for line in ["metric a", "metric a NaN", "metric a inf", "metric a 1e999", "metric a 1 2"] {
            assert_eq!(progress(line), Err(LineRefused::MetricValue), "{line}");
        }
        assert_eq!(progress("metric"), Err(LineRefused::MetricName));
        assert_eq!(progress(&format!("metric {} 1", "n".repeat(65))), Err(LineRefused::MetricName));
        assert_eq!(progress("hello"), Err(LineRefused::UnknownVerb));
        assert_eq!(progress("progress 0.1 \u{1b}[31m"), Err(LineRefused::NotText));
        assert_eq!(parse_line(b"progress 0.1 \xff"), Err(LineRefused::NotText));
        assert_eq!(parse_line(&[b' '; 1025]), Err(LineRefused::TooLong));
    }

    #[test]
    fn lines_cut_anywhere_are_put_together() {
        let text = b"progress 0.25 a\nmetric m 1\nmetric m 2\nprogress 0.75 b";
        for cut in 0..text.len() {
            let mut reports = Reports::default();
            reports.on_bytes(&text[..cut]);
            reports.on_bytes(&text[cut..]);
            reports.on_end();
            assert_eq!(reports.latest().progress, Some(0.75));
            assert_eq!(reports.latest().note, "b");
            assert_eq!(reports.latest().metrics, [("m".to_owned(), 2.0)]);
            assert_eq!(reports.latest().refused, 0);
        }
    }

    #[test]
    fn a_flood_is_bounded_and_counted() {
        let mut reports = Reports::default();
        for _ in 0..100 {
            reports.on_bytes(&[b'x'; 100_000]);
        }
        assert!(reports.partial.capacity() <= 2 * REPORT_LINE_BYTES_MAX);
        reports.on_bytes(b"\nprogress 0.5\n");
        assert_eq!(reports.latest().refused, 1);
        assert_eq!(reports.latest().progress, Some(0.5));
        for n in 0..1000 {
            reports.on_bytes(format!("metric m{n} {n}\n").as_bytes());
        }
        assert_eq!(reports.latest().metrics.len(), METRICS_MAX);
        assert_eq!(reports.latest().refused, 1 + 1000 - METRICS_MAX as u64);
    }

    #[test]
    fn only_news_is_sent_and_not_too_often() {
        let mut reports = Reports::default();
        assert_eq!(reports.due_at(), None);
        reports.on_bytes(b"progress 0.1 one\nmetric a 1\nmetric b 2\n");
        assert_eq!(reports.due_at(), Some(0));
        assert_eq!(reports.news().metrics.len(), 2);
        reports.on_sent(5_000);
        assert_eq!(reports.due_at(), None);
        reports.on_bytes(b"metric b 3\n");
        assert_eq!(reports.due_at(), Some(5_000 + REPORT_INTERVAL_US));
        let news = reports.news();
        assert_eq!((news.progress, news.note.as_str()), (None, ""));
        assert_eq!(news.metrics, [("b".to_owned(), 3.0)]);
    }
}
