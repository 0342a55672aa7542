//! The agent of Fleetwire: joins a cluster, keeps a session with its scheduler, runs what is assigned.
//!
//! [`run`] is a whole agent; the binary `fleetwire-agent` and `fleetwire dev` both call it. One thread
//! does everything but the journal's syncs. Whoever calls it must call
//! [`executor::spawner_if_asked`] first thing in `main`.

mod config;
mod connector;
mod driver;
mod error;
pub mod executor;
mod joining;
mod journal;
mod limits;
mod options;
mod probe;
mod restart;
mod runner;

pub use config::{AgentConfig, CapacityConfig, OnStop};
pub use error::AgentError;
pub use options::Options;

use connector::{Connector, Hello};
use driver::Driver;
use executor::ExecutorConfig;
use fleetwire_agent_core::{Agent, Config, Effects, Event};
use fleetwire_common::{fb, ids::Position};
use fleetwire_disk::DataFolder;
use fleetwire_link::{ClusterClock, Identity, LinkConfig};
use journal::FactLog;
use probe::Probe;
use restart::BootMark;
use runner::Runner;
use std::pin::pin;

/// Runs an agent until `shutdown` is done: joins on the first start, and from then on reconnects however
/// long it takes. Errors are for what no waiting mends.
pub async fn run(config: AgentConfig, shutdown: impl Future<Output = ()>) -> Result<(), AgentError> {
    let mut shutdown = pin!(shutdown);
    let folder = DataFolder::open(&config.data, DATA_VERSION)?;
    let identity = tokio::select! {
        identity = joining::identity(&config) => identity?,
        () = &mut shutdown => return Ok(()),
    };
    let mut driver = begin(&config, &folder, identity)?;
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::debug!(%error, "systemd was not told");
    }
    driver.drive(shutdown).await?;
    driver.journal.stop()
}

/// Puts the parts together: replays the journal, looks at what still runs. What waited goes on from here, with a
/// network or without.
fn begin(config: &AgentConfig, folder: &DataFolder, identity: Identity) -> Result<Driver, AgentError> {
    let probe = Probe::new();
    let clock = ClusterClock::from_wall();
    let mut agent = Agent::new(core_config(config, &probe, &identity)?);
    let journal = FactLog::open(folder, &mut agent, random()?)?;
    let executor = ExecutorConfig {
        slots_max: config.slots_max,
        output_bytes_max: config.output_bytes_max,
        ..ExecutorConfig::new(config.data.join(SLOTS))
    };
    let mut runner = Runner::start(executor, clock.clone()).map_err(|source| AgentError::Executor { source })?;
    let mut effects = Effects::new();
    let now = ClusterClock::local();
    agent.start(now, &mut effects);
    let unresolved = agent.unresolved().map(|attempt| (attempt, agent.job_key(attempt))).collect();
    for (attempt, state) in runner.recover(&unresolved) {
        tracing::info!(%attempt, ?state, "found after the restart");
        agent.handle(now, Event::Recovered { attempt, state }, &mut effects);
    }
    let mut boot = BootMark::read(&config.data, probe::boot_id());
    agent.handle(now, Event::Surveyed { rebooted: boot.rebooted }, &mut effects);
    boot.position = agent.position();
    let connector = Connector::new(
        identity,
        config.data.join(joining::IDENTITY_FILE),
        LinkConfig::default(),
        clock.clone(),
        Hello { boot_id: probe::boot_id(), process_start_id: random()?, software: software() },
    );
    Ok(Driver {
        agent,
        effects,
        journal,
        runner,
        probe,
        clock,
        connector,
        folder: config.data.clone(),
        on_stop: config.on_stop,
        session: None,
        outbox: Default::default(),
        sessions: 0,
        frames: Vec::new(),
        left: None,
        stopping: false,
        rested_at: Position(0),
        ended: Default::default(),
        heard: None,
        boot: boot.rebooted.then_some(boot),
        gather_until: None,
    })
}

fn core_config(config: &AgentConfig, probe: &Probe, identity: &Identity) -> Result<Config, AgentError> {
    let capacity = probe.capacity(&config.capacity, &config.data);
    tracing::info!(
        cpu = capacity.cpu,
        memory_mb = capacity.memory,
        gpu = capacity.gpu,
        storage_gb = capacity.storage,
        custom = %config.custom,
        "capacity offered"
    );
    let agent_types = match config.agent_types.as_slice() {
        [] => fb::AgentType::ENUM_VALUES.to_vec(),
        some => some.to_vec(),
    };
    Ok(Config {
        name: identity.principal.name.clone(),
        capacity,
        custom: config.custom.clone(),
        labels: config.labels.clone(),
        agent_types,
        executors: vec![fb::Executor::Process, fb::Executor::Noop],
        data_id: random()?,
        software: software(),
        host: probe::host(),
        address: config.advertise.clone().unwrap_or_default(),
        heartbeat_interval: config.heartbeat_interval,
    })
}

fn software() -> String {
    concat!("fleetwire-agent ", env!("CARGO_PKG_VERSION")).to_owned()
}

fn random() -> Result<[u8; 16], AgentError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(AgentError::Random)?;
    Ok(bytes)
}

/// Of the data folder's layout.
const DATA_VERSION: u32 = 1;
const SLOTS: &str = "slots";
