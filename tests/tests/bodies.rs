//! Files and results that lie beside the scheduler's journal: killed processes lose none of them, and what is damaged
//! on the disk costs what it held and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fleetwire_tests::{Cluster, binaries, wait_for};
use std::{fs, path::PathBuf, process::Command};

/// Text that compresses badly and is easily told from any other.
fn content(bytes: usize) -> String {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + (state >> 59) as u8 % 26)
    };
    (0..bytes).map(|_| next()).collect()
}

fn submit(cluster: &Cluster, count: usize) -> String {
    let script = "cat input >>\"$FLEETWIRE_RESULT\"";
    let task = format!("[[task]]\nname = \"copy\"\ncount = {count}\nmax_attempts = 2\nscript = '{script}'\n");
    let file = "[[task.file]]\npath = \"input\"\nsource = \"input.txt\"\n";
    let job = cluster.job_file("copy.toml", &format!("{task}{file}"));
    cluster.cli_json(&["submit", &job, "--json"])["job"].as_u64().unwrap().to_string()
}

/// The segments of blobs.
fn segments(cluster: &Cluster) -> Vec<PathBuf> {
    let files = fs::read_dir(cluster.path("scheduler/journal")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "blobs")).collect()
}

/// `fleetwire-scheduler journal check`: whether it finds all well, and what it says.
fn journal_check(cluster: &Cluster) -> (bool, String) {
    let mut check = Command::new(binaries().join("fleetwire-scheduler"));
    let output = check.args(["journal", "check", "--data"]).arg(cluster.path("scheduler")).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn files_and_results_survive_kills_and_damage_costs_what_it_hits() {
    let mut cluster = Cluster::start();
    let input = content(60_000);
    cluster.job_file("input.txt", &input);
    let job = submit(&cluster, 3);
    // Accepted, and nothing more: the file is on the disk or nowhere.
    cluster.kill_scheduler();
    cluster.start_scheduler();
    cluster.join_agent("a0", &["--cpu", "2"]);
    let result = |cluster: &Cluster, index: usize| cluster.cli(&["result", &format!("{job}.0.{index}")]);
    for index in 0..3 {
        wait_for("the result", || (result(&cluster, index).stdout == input.as_bytes()).then_some(()));
    }
    cluster.kill_scheduler();
    let (whole, said) = journal_check(&cluster);
    assert!(whole && said.contains("whole: 4 files and results beside the facts"), "{said}");
    cluster.start_scheduler();
    assert!((0..3).all(|index| result(&cluster, index).stdout == input.as_bytes()), "what was acknowledged");

    // The second result's bytes: behind a header, the file and the first result, all of one length.
    cluster.kill_scheduler();
    let [segment] = segments(&cluster).try_into().unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    bytes[512 + 2 * input.len() + 7] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let (whole, said) = journal_check(&cluster);
    assert!(!whole && said.contains("1 of the files and results"), "{said}");
    cluster.start_scheduler();
    let refused: Vec<_> = (0..3).map(|index| result(&cluster, index)).filter(|out| !out.status.success()).collect();
    let [refused] = refused.try_into().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is damaged in the 60000 bytes from byte"));

    // Without the segment no task can have its file; it fails, is said why, and the scheduler goes on.
    cluster.kill_scheduler();
    cluster.kill_agent("a0");
    cluster.start_scheduler();
    let lost = submit(&cluster, 1);
    cluster.kill_scheduler();
    fs::remove_file(&segment).unwrap();
    cluster.start_scheduler();
    cluster.start_agent("a0", &[]);
    let task = format!("{lost}.0.0");
    let row = wait_for("the task to fail", || {
        let tasks = cluster.cli_json(&["tasks", &lost, "--json"]);
        tasks.as_array()?.iter().find(|row| row["task"] == task.as_str() && row["status"] == "failed").cloned()
    });
    assert!(row.to_string().contains("a file of the job cannot be read"), "{row}");
    assert_eq!((row["attempt"].as_u64(), row["end"]["reason"].as_str()), (Some(1), Some("files_lost")), "{row}");
    let another = submit(&cluster, 1);
    wait_for("another job", || {
        (cluster.cli(&["result", &format!("{another}.0.0")]).stdout == input.as_bytes()).then_some(())
    });
}
