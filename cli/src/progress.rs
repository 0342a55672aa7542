//! Live progress: bars on a terminal, a line now and then without one. On standard error, so that
//! standard output holds results only.

use crate::table::percent;
use fleetwire_client::{
    Client, ClientError,
    views::{JobView, TaskView},
};
use fleetwire_common::ids::JobId;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    collections::BTreeMap,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

/// Shows a job's progress until it ends.
pub struct Progress {
    bars: Option<Bars>,
    said: Option<(Instant, String)>,
}

struct Bars {
    all: MultiProgress,
    job: ProgressBar,
    tasks: BTreeMap<String, ProgressBar>,
}

impl Progress {
    /// With bars if standard error is a terminal.
    pub fn to_stderr() -> Progress {
        let bars = std::io::stderr().is_terminal().then(|| {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            let job = all.add(ProgressBar::new(1_000));
            job.set_style(style("{prefix:.bold} {bar:30} {msg}"));
            Bars { all, job, tasks: BTreeMap::new() }
        });
        Progress { bars, said: None }
    }

    /// Follows the job; returns it when all its tasks ended.
    pub async fn follow(&mut self, client: &Client, job: JobId) -> Result<JobView, ClientError> {
        let mut view = client.job(job).await?;
        loop {
            let tasks = match (&self.bars, view.counts.total() <= TASKS_SHOWN_OF) {
                (Some(_), true) => client.tasks_up_to(job, TASKS_SHOWN_OF as usize).await?,
                _ => Vec::new(),
            };
            self.show(&view, &tasks);
            if view.has_ended() {
                self.finish();
                return Ok(view);
            }
            let since = Instant::now();
            view = client.job_after(job, view.version, REFRESH_WAIT).await?;
            // News may come thousands of times a second; eyes are slower.
            tokio::time::sleep(REFRESH.saturating_sub(since.elapsed())).await;
        }
    }

    fn show(&mut self, job: &JobView, tasks: &[TaskView]) {
        let Some(bars) = &mut self.bars else {
            self.say(job);
            return;
        };
        bars.job.set_prefix(format!("job {} {}", job.job, job.name));
        bars.job.set_position((f64::from(job.progress) * 1_000.0) as u64);
        bars.job.set_message(counts(job));
        let running: BTreeMap<&str, &TaskView> =
            tasks.iter().filter(|task| task.status == "running").map(|task| (task.task.as_str(), task)).collect();
        bars.tasks.retain(|name, bar| {
            let goes_on = running.contains_key(name.as_str());
            if !goes_on {
                bar.finish_and_clear();
                bars.all.remove(bar);
            }
            goes_on
        });
        for (name, task) in running.into_iter().take(LINES_MAX) {
            let bar = bars.tasks.entry(name.to_owned()).or_insert_with(|| {
                let bar = bars.all.add(ProgressBar::new(1_000));
                bar.set_style(style("  {prefix} {bar:20} {wide_msg}"));
                bar
            });
            let agent = task.agent.as_deref().unwrap_or("-");
            bar.set_prefix(format!("{name:10} {agent:12}"));
            bar.set_position((f64::from(task.progress) * 1_000.0) as u64);
            bar.set_message(task.note.clone());
        }
    }

    /// One line when something changed, at most once a second, and the last one always.
    fn say(&mut self, job: &JobView) {
        let line = format!("job {} {}: {}", job.job, job.name, counts(job));
        let news = match &self.said {
            None => true,
            Some((at, said)) => *said != line && (job.has_ended() || at.elapsed() >= Duration::from_secs(1)),
        };
        if news {
            eprintln!("{line}");
            self.said = Some((Instant::now(), line));
        }
    }

    fn finish(&mut self) {
        if let Some(bars) = &mut self.bars {
            bars.tasks.values().for_each(ProgressBar::finish_and_clear);
            bars.job.abandon();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn counts(job: &JobView) -> String {
    let counts = job.counts;
    let mut words = format!("{} of {} tasks done, {}", counts.ended(), counts.total(), percent(job.progress));
    let states = [
        (counts.running, "running"),
        (counts.failed, "failed"),
        (counts.cancelled, "cancelled"),
        (counts.skipped, "skipped"),
    ];
    for (count, state) in states {
        if count > 0 {
            words.push_str(&format!(", {count} {state}"));
        }
    }
    words
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("━╸─")
}

/// Jobs with more tasks than that are shown without lines for single tasks.
const TASKS_SHOWN_OF: u32 = 200;
const LINES_MAX: usize = 8;
const REFRESH: Duration = Duration::from_millis(60);
const REFRESH_WAIT: Duration = Duration::from_secs(10);
