//! Real clusters for tests: the binaries that people run, as processes of their own, on free loopback
//! ports and in temporary folders, stopped when the test ends however it ends.
//!
//! Nothing here sleeps for a fixed time: conditions are polled until a deadline.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

pub mod faulty_disk;
pub mod network;

use network::Network;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long a condition may take to come true on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The folder with this build's binaries; builds them once per test process, as the same profile.
pub fn binaries() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let mut folder = std::env::current_exe().unwrap();
        folder.pop();
        if folder.ends_with("deps") {
            folder.pop();
        }
        let release = folder.ends_with("release");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // The whole workspace, so that features are those of a build of all of it, and nothing is built twice.
        cargo.args(["build", "--quiet", "--workspace", "--bins"]);
        cargo.args(release.then_some("--release"));
        cargo.arg("--target-dir").arg(folder.parent().unwrap());
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(cargo.status().unwrap().success(), "the binaries do not build");
        folder
    })
}

/// Polls until `check` gives something, or panics with what was waited for.
pub fn wait_for<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One of this build's programs; `ip netns exec` becomes the program that it starts.
fn command(program: &str, namespace: Option<&str>) -> Command {
    let program = binaries().join(program);
    let Some(namespace) = namespace else { return Command::new(program) };
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

/// A process that is killed when dropped; its output goes to a file.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts one of this build's programs, in a network namespace if one is named.
    pub fn start(program: &str, arguments: &[&str], log: PathBuf, namespace: Option<&str>) -> Process {
        Process::start_in(program, arguments, log, namespace, &[])
    }

    /// The same with some variables in its environment.
    pub fn start_in(
        program: &str,
        arguments: &[&str],
        log: PathBuf,
        namespace: Option<&str>,
        environment: &[(String, String)],
    ) -> Process {
        let out = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let child = command(program, namespace)
            .args(arguments)
            .env_remove("FLEETWIRE_DATA")
            .env_remove("FLEETWIRE_HOME")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        Process { child, log }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends it a signal, while it runs.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// SIGTERM, and waits for its exit status.
    pub fn terminate(&mut self) -> std::process::ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Stops it for so long, as a suspended host does, and lets it go on.
    pub fn pause(&self, long: Duration) {
        self.signal(Signal::STOP);
        std::thread::sleep(long);
        self.signal(Signal::CONT);
    }

    pub fn wait(&mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "process {} does not end:\n{}", self.id(), self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {}:\n{}", self.log.display(), self.log());
        }
    }
}

/// A scheduler and its agents.
pub struct Cluster {
    pub scheduler: Option<Process>,
    pub agents: Vec<(String, Process)>,
    /// Its own network: `a0` is device 0, and so on. Else all are on loopback.
    pub network: Option<Arc<Network>>,
    /// What the next scheduler is told beyond its folder and address.
    pub scheduler_options: Vec<&'static str>,
    /// What the environment of whoever is started next has.
    pub environment: Vec<(String, String)>,
    // The last: processes show their logs when they are dropped in a panic.
    pub folder: TempDir,
}

impl Cluster {
    /// A scheduler on an empty folder, ready.
    pub fn start() -> Cluster {
        Cluster::start_on(None)
    }

    /// The same on a network of its own.
    pub fn start_on(network: Option<Arc<Network>>) -> Cluster {
        let folder = tempfile::Builder::new().prefix("fleetwire-test-").tempdir().unwrap();
        let (scheduler_options, environment) = (Vec::new(), Vec::new());
        let agents = Vec::new();
        let mut cluster = Cluster { folder, network, scheduler: None, agents, scheduler_options, environment };
        cluster.start_scheduler();
        cluster
    }

    /// A scheduler on a network of its own with so many devices, on none of which anything runs yet. `None` where such a
    /// network cannot be made, which is said.
    pub fn with_devices(count: usize) -> Option<(Cluster, Arc<Network>)> {
        let network = Network::new(count).inspect_err(|error| eprintln!("skipped: no network of its own: {error}"));
        let network = Arc::new(network.ok()?);
        Some((Cluster::start_on(Some(Arc::clone(&network))), network))
    }

    /// A scheduler with agents `a0`, `a1`, …, all registered.
    pub fn with_agents(count: usize) -> Cluster {
        let mut cluster = Cluster::start();
        for number in 0..count {
            cluster.join_agent(&format!("a{number}"), &["--cpu", "2"]);
        }
        cluster.wait_for_agents(count);
        cluster
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn data(&self) -> String {
        self.path("scheduler").to_str().unwrap().to_owned()
    }

    /// Starts the scheduler (again) on its folder, on the same port as before.
    pub fn start_scheduler(&mut self) {
        let file = self.path("scheduler").join("address");
        let listen = fs::read_to_string(&file).map(|text| text.trim().to_owned());
        let _ = fs::remove_file(&file);
        let host = self.network.as_ref().map_or("127.0.0.1".to_owned(), |network| network.coordinator());
        let listen = listen.unwrap_or_else(|_| format!("{host}:0"));
        let hub = self.network.as_ref().map(|network| network.hub());
        let (data, log) = (self.data(), self.path("scheduler.log"));
        let mut options = vec!["--data", &data, "--listen", &listen, "--heartbeat", "1"];
        options.extend(&self.scheduler_options);
        let process = Process::start_in("fleetwire-scheduler", &options, log, hub.as_deref(), &self.environment);
        self.scheduler = Some(process);
        wait_for("the scheduler's address file", || file.exists().then_some(()));
    }

    pub fn kill_scheduler(&mut self) {
        self.scheduler.take().unwrap().kill();
    }

    /// A new agent, with a fresh token.
    pub fn join_agent(&mut self, name: &str, more: &[&str]) {
        let token = self.cli_ok(&["token", "create", "--role", "agent"]);
        let token = token.split_whitespace().find(|word| word.starts_with("fwj1-")).expect("a token").to_owned();
        self.start_agent(name, &[&["--join", &token, "--name", name], more].concat());
    }

    /// An agent's process on its folder (again).
    pub fn start_agent(&mut self, name: &str, arguments: &[&str]) {
        let data = self.path(name).to_str().unwrap().to_owned();
        let arguments = [&["--data", &data], arguments].concat();
        let number = name.trim_start_matches('a').parse().unwrap_or_default();
        let namespace = self.network.as_ref().map(|network| network.device(number));
        let log = self.path(&format!("{name}.log"));
        let namespace = namespace.as_deref();
        let process = Process::start_in("fleetwire-agent", &arguments, log, namespace, &self.environment);
        self.agents.push((name.to_owned(), process));
    }

    pub fn kill_agent(&mut self, name: &str) {
        let at = self.agents.iter().position(|(other, _)| other == name).unwrap();
        self.agents.remove(at).1.kill();
    }

    pub fn agent(&mut self, name: &str) -> &mut Process {
        &mut self.agents.iter_mut().find(|(other, _)| other == name).unwrap().1
    }

    /// Submits a job file's text; its number.
    pub fn submit(&self, text: &str) -> String {
        let file = self.job_file("job.toml", text);
        self.cli_json(&["submit", &file, "--json"])["job"].as_u64().expect("a number").to_string()
    }

    /// How many tasks of a job have a status; 0 while nobody answers.
    pub fn count(&self, job: &str, status: &str) -> u64 {
        let output = self.cli(&["job", job, "--json"]);
        let view: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        view["counts"][status].as_u64().unwrap_or_default()
    }

    /// Waits until so many tasks of a job have a status.
    pub fn wait_for_count(&self, job: &str, status: &str, count: u64) {
        wait_for(&format!("{count} tasks of job {job} to be {status}"), || {
            (self.count(job, status) >= count).then_some(())
        });
    }

    /// What the tasks of [`Cluster::ledger_job`] wrote: how often each attempt, `TASK ATTEMPT`, began and ended.
    pub fn ledger(&self) -> BTreeMap<String, (u32, u32)> {
        let mut attempts: BTreeMap<String, (u32, u32)> = BTreeMap::new();
        for line in fs::read_to_string(self.path("ledger")).unwrap_or_default().lines() {
            let (what, attempt) = line.split_once(' ').unwrap_or_else(|| panic!("torn: {line:?}"));
            let entry = attempts.entry(attempt.to_owned()).or_default();
            let counter = if what == "begin" { &mut entry.0 } else { &mut entry.1 };
            *counter += 1;
        }
        attempts
    }

    /// A job whose tasks write to the ledger, and end once the file `go` is there.
    pub fn ledger_job(&self, terms: &str, count: u32) -> String {
        let folder = self.folder.path().display();
        format!(
            r#"
{terms}
[[task]]
count = {count}
cpu = 1
max_attempts = 1
script = """
me="$FLEETWIRE_TASK_ID $FLEETWIRE_ATTEMPT"
echo "begin $me" >>"{folder}/ledger"
i=0
while [ ! -e "{folder}/go" ] && [ $i -lt 12000 ]; do sleep 0.01; i=$((i+1)); done
echo "end $me" >>"{folder}/ledger"
printf '"%s"' "$me" >"$FLEETWIRE_RESULT"
"""
"#
        )
    }

    /// Lets the tasks of [`Cluster::ledger_job`] end, and checks that each is committed once, by its first attempt,
    /// which ran once.
    pub fn finish_undisturbed(&self, job: &str, count: u64) {
        fs::write(self.path("go"), "").unwrap();
        self.wait_for_count(job, "completed", count);
        let tasks = self.cli_json(&["tasks", job, "-n", "1000", "--json"]);
        for task in tasks.as_array().expect("rows") {
            assert_eq!((&task["status"], &task["attempt"]), (&"completed".into(), &1.into()), "{task}");
        }
        let ledger = self.ledger();
        let of_job = || ledger.iter().filter(|(attempt, _)| attempt.starts_with(&format!("{job}.")));
        assert_eq!(of_job().count() as u64, count, "an attempt ran that was not needed: {ledger:?}");
        assert!(of_job().all(|(_, ran)| *ran == (1, 1)), "{ledger:?}");
    }

    pub fn wait_for_agents(&self, count: usize) {
        wait_for("the agents to register", || {
            let agents = self.cli_json(&["agents", "--json"]);
            let rows = agents.as_array()?;
            (rows.iter().filter(|row| row["connected"] == true).count() >= count).then_some(())
        });
    }

    /// The local operator, who may work in another thread.
    pub fn operator(&self) -> Operator {
        Operator { data: self.data(), home: self.path("home"), hub: self.network.as_ref().map(|network| network.hub()) }
    }

    /// The operator of another scheduler's folder, in its namespace.
    pub fn operator_of(&self, data: &Path, namespace: &str) -> Operator {
        let data = data.to_str().unwrap().to_owned();
        Operator { data, home: self.path("home-of-another"), hub: Some(namespace.to_owned()) }
    }

    /// Runs the CLI as the local operator.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        self.operator().cli(arguments)
    }

    /// … and expects success; returns its standard output.
    pub fn cli_ok(&self, arguments: &[&str]) -> String {
        self.operator().cli_ok(arguments)
    }

    /// … and reads its output as JSON.
    pub fn cli_json(&self, arguments: &[&str]) -> serde_json::Value {
        self.operator().cli_json(arguments)
    }

    /// Writes a job file into the cluster's folder.
    pub fn job_file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Cluster {
    /// Agents that are killed cannot tidy up: what they left in memory goes, too.
    fn drop(&mut self) {
        self.agents.clear();
        for entry in fs::read_dir(self.folder.path()).into_iter().flatten().flatten() {
            let Ok(found) = fs::metadata(entry.path().join("slots")) else { continue };
            let cell = format!("/dev/shm/fleetwire-agent-{}-{:x}-{:x}", found.uid(), found.dev(), found.ino());
            let _ = fs::remove_file(cell);
        }
    }
}

/// Processes of that name (empty: any) whose working directory lies in a folder.
pub fn processes_in(folder: &Path, name: &str) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let inside = |pid: &u32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
    pids.filter(inside).filter(|pid| name.is_empty() || name_of(*pid) == name).collect()
}

/// What the kernel calls a process.
pub fn name_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// Whoever uses the CLI on the coordinator.
#[derive(Clone)]
pub struct Operator {
    data: String,
    home: PathBuf,
    /// The coordinator's namespace.
    hub: Option<String>,
}

impl Operator {
    /// Runs the CLI as the local operator.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        command("fleetwire", self.hub.as_deref())
            .args(arguments)
            .env("FLEETWIRE_DATA", &self.data)
            .env("FLEETWIRE_HOME", &self.home)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// … and expects success; returns its standard output.
    pub fn cli_ok(&self, arguments: &[&str]) -> String {
        let output = self.cli(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "fleetwire {arguments:?} failed with {}:\n{}{}",
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// … and reads its output as JSON.
    pub fn cli_json(&self, arguments: &[&str]) -> serde_json::Value {
        let text = self.cli_ok(arguments);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?} printed no JSON ({error}):\n{text}"))
    }
}

/// The example that the repository ships.
pub fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
    path.to_str().unwrap().to_owned()
}
