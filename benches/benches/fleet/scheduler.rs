//! The scheduler's process, as its operator has it.

use fleetwire_client::Client;
use fleetwire_common::{
    fb,
    ids::{JobId, Name},
    job::{JobSpec, TaskSpec},
    resources::Resources,
};
use fleetwire_link::Identity;
use fleetwire_tests::{Process, binaries, wait_for};
use std::{path::PathBuf, process::Command, time::Duration};
use tempfile::TempDir;

pub struct Scheduler {
    process: Process,
    address: String,
    client: Option<Client>,
    // The last: the process ends before its folder goes.
    folder: TempDir,
}

impl Scheduler {
    /// On an empty folder.
    pub fn start() -> Scheduler {
        let folder = tempfile::Builder::new().prefix("fleetwire-bench-").tempdir().unwrap();
        let process = start(&folder, "127.0.0.1:0");
        let address = std::fs::read_to_string(folder.path().join("data/address")).unwrap().trim().to_owned();
        Scheduler { process, address, client: None, folder }
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Stops it in order, so that all its agents are told at once, and starts it again at the same place.
    pub fn restart(&mut self) {
        self.client = None;
        self.process.terminate();
        std::fs::remove_file(self.data().join("address")).unwrap();
        self.process = start(&self.folder, &self.address);
    }

    /// A token with which so many agents may join.
    pub fn token(&self, uses: usize) -> String {
        let mut command = Command::new(binaries().join("fleetwire"));
        command.args(["token", "create", "--role", "agent", "--uses", &uses.to_string(), "--data"]).arg(self.data());
        let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
        said.split_whitespace().find(|word| word.starts_with("fwj1-")).expect("a token").to_owned()
    }

    /// Submits a job that gives each agent one task.
    pub async fn occupy(&mut self, agents: usize) -> JobId {
        let resources = Resources { cpu: 1_000, ..Resources::ZERO };
        let task = TaskSpec {
            count: agents as u32,
            array: true,
            executor: fb::Executor::Process,
            command: "/bin/true".into(),
            resources,
            ..TaskSpec::default()
        };
        let job = JobSpec::new(Name::new("fleet").unwrap(), vec![task], 300).unwrap();
        self.client().await.submit(&job).await.unwrap().job
    }

    /// How many tasks do not run in their first attempt.
    pub async fn disturbed(&mut self, job: JobId, tasks: usize) -> usize {
        let all = self.client().await.tasks_up_to(job, tasks).await.unwrap();
        all.len().abs_diff(tasks) + all.iter().filter(|task| task.attempt != 1 || task.status != "running").count()
    }

    async fn client(&mut self) -> &Client {
        if self.client.is_none() {
            let mut identity = Identity::load(&self.data().join("operator.identity")).unwrap();
            identity.addresses = vec![self.address.clone()];
            self.client = Some(Client::connect(identity).await.unwrap().with_patience(Duration::from_secs(60)));
        }
        self.client.as_ref().unwrap()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

fn start(folder: &TempDir, listen: &str) -> Process {
    let data = folder.path().join("data");
    let heartbeat = super::HEARTBEAT.as_secs().to_string();
    let options = ["--data", data.to_str().unwrap(), "--listen", listen, "--heartbeat", &heartbeat, "--log", "warn"];
    let process = Process::start("fleetwire-scheduler", &options, folder.path().join("log"), None);
    wait_for("the scheduler's address file", || data.join("address").exists().then_some(()));
    process
}
