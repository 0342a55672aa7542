//! `fleetwire-scheduler journal` as the process that an operator runs: on a whole journal, a damaged one, one in
//! use, and none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fleetwire_scheduler::{Scheduler, SchedulerConfig, Started};
use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// Runs the tool: its exit status, what it printed, what it complained of.
fn journal(arguments: &[&str], data: &Path) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetwire-scheduler"));
    command.arg("journal").args(arguments).arg("--data").arg(data);
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

async fn start(data: &Path) -> (Scheduler, Started) {
    let config = SchedulerConfig { listen: (Ipv4Addr::LOCALHOST, 0).into(), ..SchedulerConfig::new(data) };
    Scheduler::start(config).await.unwrap()
}

/// A data folder after so many starts.
async fn data(folder: &Path, starts: usize) -> PathBuf {
    let data = folder.join("data");
    for _ in 0..starts {
        let (mut scheduler, _) = start(&data).await;
        scheduler.stop();
        scheduler.ended().await.unwrap();
    }
    data
}

fn segment(data: &Path, number: u64) -> PathBuf {
    data.join(format!("journal/{number:010}.segment"))
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn a_whole_journal_is_checked_and_printed() {
    let folder = TempDir::new().unwrap();
    let data = data(folder.path(), 3).await;
    let (status, out, err) = journal(&["check"], &data);
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    assert!(
        out.contains("0000000001.segment  facts 1 to 3, ") && out.contains("0000000003.segment  facts from 5 on"),
        "{out}"
    );
    assert!(out.contains("whole: 5 facts, of which 5 are marked durable\n"), "{out}");

    let (status, out, _) = journal(&["dump"], &data);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((status, lines.len()), (0, 5));
    assert!(lines[0].starts_with("1 ") && lines[0].contains("IncarnationStarted { incarnation: 1"), "{out}");
    assert!(lines[1].contains("PrincipalEnrolled") && lines[2].contains("TokenIssued"), "{out}");
    let (_, out, _) = journal(&["dump", "--json"], &data);
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[4].starts_with(r#"{"position":5,"at_us":1"#) && lines[4].ends_with(r#""}"#), "{out}");
    assert!(lines[4].contains(r#"software: \"fleetwire-scheduler "#), "{out}");
    assert_eq!(journal(&["repair"], &data), (0, "nothing to repair: the journal is whole\n".into(), String::new()));
}

#[tokio::test]
async fn a_damaged_journal_is_refused_and_repaired_only_with_a_word() {
    let folder = TempDir::new().unwrap();
    let data = data(folder.path(), 4).await;
    flip(&segment(&data, 3), 600);
    let damaged = fs::read(segment(&data, 3)).unwrap();
    let (status, out, err) = journal(&["check"], &data);
    assert_eq!(status, 1, "{out}");
    assert!(
        err.contains("0000000003.segment is damaged at byte 512") && err.contains("journal repair --data"),
        "{err}"
    );
    let (status, out, err) = journal(&["dump"], &data);
    assert_eq!((status, out.lines().count()), (1, 4), "what is valid is printed: {out}");
    assert!(err.contains("is damaged at byte 512"), "{err}");

    let (status, out, err) = journal(&["repair"], &data);
    assert_eq!(status, 1);
    assert!(
        out.contains("kept:  facts 1 to 4\n") && out.contains("lost:  facts 5 to 6, which were known durable"),
        "{out}"
    );
    assert!(out.contains("files: 0000000003.segment, 0000000004.segment; they are copied to "), "{out}");
    assert!(err.contains("nothing was changed: add --yes"), "{err}");
    assert!(fs::read(segment(&data, 3)).unwrap() == damaged && !data.join("journal-damaged-1").exists());

    let (status, out, err) = journal(&["repair", "--yes"], &data);
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("\ndone. "), "{out}");
    assert!(fs::read(data.join("journal-damaged-1/0000000003.segment")).unwrap() == damaged);
    let (status, out, _) = journal(&["check"], &data);
    assert!(status == 0 && out.contains("whole: 4 facts"), "{out}");
    let (mut scheduler, started) = start(&data).await;
    assert_eq!((started.incarnation, started.facts), (3, 5));
    scheduler.stop();
    scheduler.ended().await.unwrap();
}

#[tokio::test]
async fn a_journal_in_use_is_left_alone_and_none_is_none() {
    let folder = TempDir::new().unwrap();
    let data = data(folder.path(), 1).await;
    let (mut scheduler, _) = start(&data).await;
    for command in ["check", "dump", "repair"] {
        let (status, out, err) = journal(&[command], &data);
        assert_eq!((status, out.as_str()), (1, ""));
        assert!(err.contains("is in use by process "), "{err}");
    }
    scheduler.stop();
    scheduler.ended().await.unwrap();

    let none = folder.path().join("nothing");
    let (status, _, err) = journal(&["check"], &none);
    assert!(status == 1 && err.contains("there is no journal in ") && !none.exists(), "{err}");
    // What cannot be repaired is said too.
    flip(&segment(&data, 1), 20);
    let (status, out, err) = journal(&["repair", "--yes"], &data);
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(
        err.contains("0000000001.segment is damaged at byte 0") && err.contains("restore the data folder"),
        "{err}"
    );
}
