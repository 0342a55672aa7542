//! Files and results beside the scheduler's journal, on a disk that loses what was not synced: each that is sent is
//! held against what was decided, byte by byte.
#![allow(clippy::expect_used)]

use fleetwire_common::{
    fb::QueryKind,
    job::{FileSpec, TaskSpec},
};
use fleetwire_journal::Disk;
use fleetwire_sim::{
    Setting, Wish,
    stories::{Story, runs_for},
};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn bodies_leave_the_reserve_of_a_full_disk_to_facts() {
    for seed in 0..6 {
        let mut t = Story::with(Setting { agents: 2, ..Setting::calm() }, seed);
        for round in 0..20 {
            // Room for a segment or two beyond those that are ready; then none; then enough again.
            let room = (round % 4 != 3).then_some(70_000);
            let disk = t.cluster.scheduler.disk.clone();
            disk.set_capacity(room.map(|room| disk.used_bytes() + room * u64::from(round % 4 == 0)));
            // At once they would need two segments more than there may be.
            let file = |path: &str| FileSpec { path: path.to_owned(), data: vec![round; 15_000], executable: false };
            let files = ["a", "b", "c", "d", "e"].map(file).into();
            let arguments = vec!["for=100".into(), "result=3000".into()];
            t.submit(vec![TaskSpec { count: 4, array: true, files, arguments, ..runs_for(SECOND) }], 60 * SECOND);
            t.run_for(SECOND);
        }
        t.cluster.scheduler.disk.set_capacity(None);
        t.run_until_idle();
        assert!(segments(&t) > 2, "bodies had room at times");
    }
}

/// How many segments of blobs there are.
fn segments(t: &Story) -> usize {
    let names = t.cluster.scheduler.disk.names().expect("a disk without faults");
    names.iter().filter(|name| name.ends_with(".blobs")).count()
}

#[test]
fn files_and_results_come_back_as_they_were_whatever_fails() {
    let mut most = 0;
    for seed in 0..12 {
        let (snapshot_every, ended_kept) = (2 * SECOND, 10 * SECOND);
        let calm = Setting::calm();
        let mut t = Story::with(Setting { agents: 2, power_permille: 700, snapshot_every, ended_kept, ..calm }, seed);
        let mut jobs = Vec::new();
        for round in 0..12_u8 {
            let data = vec![round; 5_000 + 1_000 * usize::from(round)];
            let files = vec![FileSpec { path: "input".to_owned(), data, executable: false }];
            let arguments = vec!["for=100".into(), "result=3000".into()];
            // Some run on while others are forgotten.
            let spec = if round % 4 == 1 { runs_for(40 * SECOND) } else { TaskSpec { arguments, ..runs_for(SECOND) } };
            let submit = t.submit(vec![TaskSpec { count: 5, array: true, files, ..spec }], 60 * SECOND);
            t.run_for(SECOND / 10 * u32::from(round % 5));
            t.wish(Wish::Ask(submit, QueryKind::Result));
            t.scheduler().restart_after(SECOND / 4);
            t.run_for(2 * SECOND);
            t.wish(Wish::Ask(submit, QueryKind::Result));
            jobs.push(submit);
            most = most.max(segments(&t));
        }
        t.run_until_idle();
        assert!(jobs.into_iter().all(|submit| t.ends(t.job_of(submit)).iter().all(Option::is_some)));
        t.run_for(60 * SECOND);
        // Someone must come for what has ended to be forgotten, and for a snapshot to stand behind that.
        let last = t.submit(vec![runs_for(SECOND)], 60 * SECOND);
        t.run_for(20 * SECOND);
        assert!(t.ends(t.job_of(last)).iter().all(Option::is_some));
        assert!(segments(&t) <= 2, "seed {seed}: {} segments are left", segments(&t));
    }
    assert!(most > 3, "at most {most} segments: this is about more");
}
