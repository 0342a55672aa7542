//! A real disk that is full, small because it is a file system in memory of the scheduler's own: first no more jobs
//! are taken, then what runs goes on, and only when the reserve is used up as well the scheduler ends, says
//! why, and goes on once there is room.
//!
//! Needs a system on which anybody may mount such a file system for himself; skipped elsewhere, and said.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fleetwire_tests::{Process, binaries, wait_for};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;

/// Room for the scheduler's segment, its reserve, one for bodies and the next, and later for one of each again.
const DISK: &str = "size=180m";

struct Small {
    scheduler: Option<Process>,
    agent: Option<Process>,
    keeper: Process,
    folder: TempDir,
}

impl Small {
    /// `None` if this system does not let us.
    fn new() -> Option<Small> {
        let folder = TempDir::new().unwrap();
        let disk = folder.path().join("disk");
        fs::create_dir(&disk).unwrap();
        let mount = format!("mount -t tmpfs -o {DISK} none \"$0\" && : > \"$0/mounted\" && exec sleep 3600");
        let mut keeper = Process::start(
            "/usr/bin/unshare",
            &["-Urm", "sh", "-c", &mount, path(&disk)],
            folder.path().join("keeper.log"),
            None,
        );
        let inside = inside(&keeper, &disk).join("mounted");
        wait_for("the small disk", || (inside.exists() || !keeper.is_running()).then_some(()));
        keeper.is_running().then(|| Small { scheduler: None, agent: None, keeper, folder })
    }

    /// The small disk, as it is seen from here.
    fn disk(&self) -> PathBuf {
        inside(&self.keeper, &self.folder.path().join("disk"))
    }

    fn start_scheduler(&mut self) {
        let data = self.disk().join("data");
        let address = data.join("address");
        let listen = fs::read_to_string(&address).map_or("127.0.0.1:0".to_owned(), |text| text.trim().to_owned());
        let _ = fs::remove_file(&address);
        let (keeper, program) = (self.keeper.id().to_string(), binaries().join("fleetwire-scheduler"));
        let inner = self.folder.path().join("disk/data");
        let enter = ["-t", &keeper, "-U", "-m", "--preserve-credentials", path(&program)];
        let options = ["--data", path(&inner), "--listen", &listen, "--heartbeat", "1"];
        let log = self.folder.path().join("scheduler.log");
        self.scheduler = Some(Process::start("/usr/bin/nsenter", &[&enter[..], &options[..]].concat(), log, None));
        wait_for("the scheduler's address", || address.exists().then_some(()));
    }

    fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binaries().join("fleetwire"));
        command.args(arguments).env("FLEETWIRE_DATA", self.disk().join("data"));
        command.env("FLEETWIRE_HOME", self.folder.path().join("home")).stdin(Stdio::null()).output().unwrap()
    }

    fn cli_ok(&self, arguments: &[&str]) -> String {
        let output = self.cli(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn job(&self, name: &str, text: &str) -> PathBuf {
        let file = self.folder.path().join(name);
        fs::write(&file, text).unwrap();
        file
    }

    /// How many segments are ready.
    fn prepared(&self) -> usize {
        let names = fs::read_dir(self.disk().join("data/journal")).unwrap();
        names.filter(|name| path(&name.as_ref().unwrap().path()).contains("prepared-")).count()
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut filler = fs::OpenOptions::new().append(true).create(true).open(self.disk().join("filler")).unwrap();
        while filler.write_all(&[1; 4096]).is_ok() {}
    }

    fn empty(&self) {
        fs::remove_file(self.disk().join("filler")).unwrap();
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn inside(keeper: &Process, folder: &Path) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root{}", keeper.id(), path(folder)))
}

fn completed(small: &Small, job: &str) -> u64 {
    let output = small.cli(&["job", job, "--json"]);
    let job: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    job["counts"]["completed"].as_u64().unwrap_or_else(|| panic!("{job}"))
}

#[test]
fn a_full_disk_refuses_jobs_then_uses_its_reserve_and_then_ends_until_there_is_room() {
    let Some(mut small) = Small::new() else {
        eprintln!("skipped: this system does not let a test mount a file system of its own");
        return;
    };
    small.start_scheduler();
    wait_for("the reserve, and one for bodies", || (small.prepared() == 3).then_some(()));
    let token = small.cli_ok(&["token", "create", "--role", "agent"]);
    let token = token.split_whitespace().find(|word| word.starts_with("fwj1-")).unwrap().to_owned();
    let data = small.folder.path().join("agent");
    let options = ["--data", path(&data), "--join", &token, "--name", "a", "--cpu", "2"];
    small.agent = Some(Process::start("fleetwire-agent", &options, small.folder.path().join("agent.log"), None));
    let go = small.folder.path().join("go");
    let many = format!(
        "[[task]]\ncount = 900\ncpu = \"100m\"\nscript = \"while [ ! -e {} ]; do sleep 0.1; done; head -c 65000 /dev/urandom > result\"\n",
        go.display()
    );
    small.cli_ok(&["submit", path(&small.job("many.toml", &many))]);

    let content = "x".repeat(900_000);
    let large = format!("[[task]]\nexecutor = \"noop\"\n[[task.file]]\npath = \"f\"\ncontent = \"{content}\"\n");
    let large = small.job("large.toml", &large);
    // It begins a segment of bodies, which is not one of the reserve: there is another for the next.
    small.cli_ok(&["submit", path(&large)]);
    wait_for("one for the next bodies", || (small.prepared() == 3).then_some(()));

    small.fill();
    let mut taken = 0;
    let refused = loop {
        let output = small.cli(&["submit", path(&large)]);
        if !output.status.success() {
            break String::from_utf8(output.stderr).unwrap();
        }
        taken += 1;
        assert!(taken < 40, "two segments are all that is left");
    };
    assert!(refused.contains("disk is full"), "{refused}");
    // 18 of 900,000 bytes fill a segment.
    assert!(taken > 17, "{taken} were taken before only the reserve was left");
    wait_for("the reserve to be what is left", || (small.prepared() == 2).then_some(()));
    small.cli_ok(&["cancel", "1.0.899"]);

    // What runs goes on, on the reserve, until that is used up.
    fs::write(&go, "").unwrap();
    let status = small.scheduler.as_mut().unwrap().wait();
    let log = fs::read_to_string(small.folder.path().join("scheduler.log")).unwrap();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("the disk is full: no new job is taken") && log.contains("no space is left"), "{log}");
    assert!(log.contains("everything that was acknowledged is durable. Start it again"), "{log}");

    small.empty();
    small.start_scheduler();
    // Two segments hold more than 400 results of 65,000 bytes.
    let kept = completed(&small, "1");
    assert!(kept > 400, "{kept} results were kept on the reserve");
    assert!(small.cli(&["submit", path(&small.job("one.toml", "[[task]]\nexecutor = \"noop\"\n"))]).status.success());
    wait_for("some more results", || (completed(&small, "1") > kept).then_some(()));
}
