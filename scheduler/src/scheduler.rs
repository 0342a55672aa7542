//! [`Scheduler`]: a running scheduler, and how it is put together at its start.

use crate::{
    bodies::Bodies,
    config::{CLOCK_JUMP_MAX, SchedulerConfig},
    data::{Data, JOURNAL, random},
    driver::{Driver, Parts},
    error::{RunError, StartError},
    joining::Joiners,
    limits::{DATA_VERSION, FIRST_TOKEN_LIFE, FIRST_TOKEN_USES, INPUTS_MAX},
    network::{Network, Serving},
    refusals::Refusals,
    snapshots,
};
use fleetwire_common::{
    fb,
    ids::{Name, Position, Principal},
    time::Time,
};
use fleetwire_disk::{DataFolder, FsDisk, JournalWriter, WriterConfig};
use fleetwire_journal::{DiskErrorKind, Journal, JournalConfig, OpenError, Recovery, retire_blobs, snapshot_name};
use fleetwire_link::{ClusterClock, DeviceKey};
use fleetwire_scheduler_core::{Config, Event, Policy, Scheduler as Core};
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    thread,
    time::Duration,
};
use tokio::sync::{Notify, mpsc, oneshot};

/// A running scheduler: three threads (of decisions and the network, of the journal, of snapshots), which end when it is stopped or dropped.
#[derive(Debug)]
pub struct Scheduler {
    stop: Arc<Notify>,
    ended: oneshot::Receiver<Result<(), RunError>>,
}

/// What is to be said of a start.
#[derive(Clone, Debug)]
pub struct Started {
    /// The cluster's name.
    pub cluster: String,
    /// What was bound.
    pub address: SocketAddr,
    /// Where the local operator's credentials are.
    pub operator: PathBuf,
    /// The first start's join token for agents.
    pub token: Option<String>,
    /// How many agents it lets in.
    pub token_uses: u32,
    /// For how long it is good.
    pub token_life: Duration,
    /// Which start this is.
    pub incarnation: u64,
    /// Facts in the journal.
    pub facts: u64,
    /// Agents that the cluster knows.
    pub agents: usize,
    /// Jobs that it remembers.
    pub jobs: usize,
}

impl Scheduler {
    /// Starts a scheduler; returns once it is ready: its journal replayed, its start durable, its address
    /// bound.
    pub async fn start(config: SchedulerConfig) -> Result<(Scheduler, Started), StartError> {
        let fault = |error| StartError::Runtime { what: "driver", error };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fault)?;
        let stop = Arc::new(Notify::new());
        let (ready, is_ready) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let stopped = Arc::clone(&stop);
        let run = async move {
            match begin(&config).await {
                Ok((driver, mut network, started)) => {
                    let _ = ready.send(Ok(started));
                    let result = driver.run(&stopped).await;
                    network.stop().await;
                    let _ = end.send(result);
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        };
        thread::Builder::new().name("scheduler".to_owned()).spawn(move || runtime.block_on(run)).map_err(fault)?;
        let started = is_ready.await.map_err(|_| RunError::Thread("driver"))??;
        Ok((Scheduler { stop, ended }, started))
    }

    /// Asks it to stop in an orderly way.
    pub fn stop(&self) {
        self.stop.notify_one();
    }

    /// Waits until it has stopped, asked or not.
    pub async fn ended(&mut self) -> Result<(), RunError> {
        (&mut self.ended).await.unwrap_or(Err(RunError::Thread("driver")))
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

async fn begin(config: &SchedulerConfig) -> Result<(Driver, Network, Started), StartError> {
    let clock = ClusterClock::from_wall();
    let wall = clock.now();
    let folder = DataFolder::open(&config.data, DATA_VERSION)?;
    let data = Data::open(config, folder, wall)?;
    let mut network = Network::bind(config.listen, &data.server, data.keys.clone(), clock.clone())?;
    let addresses = config.addresses(network.address);

    let incarnation_id = random::<16>()?;
    let core = Core::new(Config {
        cluster: data.authority.cluster().to_owned(),
        keys: data.keys.clone(),
        authority_sha256: data.authority.sha256(),
        addresses: addresses.clone(),
        incarnation_id,
        seed: u64::from_le_bytes(random::<8>()?),
        heartbeat_interval: config.heartbeat_interval,
        software: crate::SOFTWARE.to_owned(),
        accept_restore: config.accept_restore,
        policy: Policy { forget_after: config.forget_after, ..Policy::default() },
    });
    let (core, journal, recovery) = replay(core, &data)?;
    set_clock(&clock, wall, &core, config.accept_clock)?;

    let (inputs_sender, inputs) = mpsc::channel(INPUTS_MAX);
    let (synced_sender, synced) = mpsc::unbounded_channel();
    let (durable, bodies) = (journal.durable(), Bodies::new(journal.disk().clone()));
    let snapshotter = snapshots::start(journal.disk().clone(), journal_config(&data), config)?;
    let snapshots = (snapshotter, (recovery.facts, recovery.bytes));
    let journal = JournalWriter::start_with_snapshots(journal, WriterConfig::default(), snapshots, move |durable| {
        // Nobody there any more: the scheduler is stopping.
        let _ = synced_sender.send(durable);
    })
    .map_err(|error| StartError::Runtime { what: "journal", error })?;
    let durable_shared = Arc::new(AtomicU64::new(durable.0));
    let joiners = Joiners::new(data.authority.clone(), data.keys.clone());
    let refusals = Arc::new(Refusals::default());
    let counted = Arc::clone(&refusals);
    let parts = Parts {
        core,
        journal,
        clock: clock.clone(),
        bodies,
        refusals,
        joiners,
        durable,
        durable_shared,
        inputs,
        synced,
    };
    let serving = Serving {
        cluster: data.authority.cluster().to_owned(),
        keys: data.keys.clone(),
        epoch: data.epoch.clone(),
        incarnation: 0,
        incarnation_id,
        durable: Arc::clone(&parts.durable_shared),
        clock: clock.clone(),
        inputs: inputs_sender,
        refusals: counted,
    };
    let mut driver = Driver::new(parts);
    driver.begin().await?;
    enrol_operator(&mut driver, &data, addresses, clock.now()).await?;
    let token = if data.first { first_token(&mut driver).await? } else { None };
    let core = driver.core();
    let started = Started {
        cluster: data.authority.cluster().to_owned(),
        address: network.address,
        operator: data.operator_path(),
        token,
        token_uses: FIRST_TOKEN_USES,
        token_life: FIRST_TOKEN_LIFE,
        incarnation: core.incarnation(),
        facts: core.position().0,
        agents: core.state().agents.count(),
        jobs: core.state().jobs.len(),
    };
    data.write_address(network.address)?;
    network.serve(Serving { incarnation: core.incarnation(), ..serving });
    driver.keep(data);
    Ok((driver, network, started))
}

/// Reads the journal into the core.
fn replay(mut core: Core, data: &Data) -> Result<(Core, Journal<FsDisk>, Recovery), StartError> {
    let disk = data.folder.disk(JOURNAL)?;
    let config = journal_config(data);
    let (journal, recovery) =
        Journal::open(disk, &config, |position: Position, fact: &[u8]| core.replay_at(position, fact)).map_err(
            |error| match error {
                OpenError::Disk(cause) if cause.kind == DiskErrorKind::Full => {
                    StartError::DiskFull { cause, needed_mib: config.segment_bytes >> 20 }
                }
                error => StartError::Journal(error),
            },
        )?;
    // Segments of blobs that a crash left before any fact named what is in them.
    let newest = core.state().blobs.stream.segment;
    if let Err(error) = retire_blobs(journal.disk(), |segment| segment <= newest, |_| Ok(())) {
        tracing::warn!("what a crash has left of the journal is still there: {error}");
    }
    for damaged in &recovery.damaged {
        tracing::warn!(
            "{} is damaged at byte {} ({}): it was not needed, because the snapshot or the segments before it are \
             still there; check this disk",
            snapshot_name(damaged.position),
            damaged.offset,
            damaged.damage
        );
    }
    if let Some(cut) = &recovery.cut {
        tracing::warn!(
            "the journal's last write did not get through before a crash: {} bytes that nobody was told about \
             were cut",
            cut.bytes
        );
    }
    Ok((core, journal, recovery))
}

fn journal_config(data: &Data) -> JournalConfig {
    JournalConfig::new(data.journal_identity())
}

/// Cluster time goes on where the journal ended, or at the wall clock's time, whichever is later.
fn set_clock(clock: &ClusterClock, wall: Time, core: &Core, accepted: bool) -> Result<(), StartError> {
    let last = core.last_fact_at();
    let ahead = wall.since(last);
    if core.position() > Position(0) && ahead > CLOCK_JUMP_MAX && !accepted {
        return Err(StartError::ClockAhead { ahead_h: ahead.as_secs() / 3_600 });
    }
    let behind = last.since(wall);
    if !behind.is_zero() {
        tracing::warn!("this machine's clock is {} s behind the journal: cluster time goes on there", behind.as_secs());
        let behind_us = i64::try_from(behind.as_micros()).unwrap_or(i64::MAX);
        clock.set_offset_us(clock.offset_us().saturating_add(behind_us));
    }
    Ok(())
}

/// The local operator's credentials: made when they are not there, whatever start this is.
async fn enrol_operator(driver: &mut Driver, data: &Data, addresses: Vec<String>, now: Time) -> Result<(), StartError> {
    if data.operator()?.is_some() {
        return Ok(());
    }
    let name = Name::new("local").map_err(fleetwire_link::AuthorityError::from)?;
    let principal = Principal { role: fb::Role::Operator, name: name.clone() };
    let key = DeviceKey::generate()?;
    let event = Event::EnrolLocally { name, role: fb::Role::Operator, key_sha256: key.key_sha256() };
    driver.locally(event).await?;
    data.issue_operator(&principal, key, addresses, now)
}

async fn first_token(driver: &mut Driver) -> Result<Option<String>, StartError> {
    let event = Event::IssueToken { role: fb::Role::Agent, uses: FIRST_TOKEN_USES, expires_in: FIRST_TOKEN_LIFE };
    Ok(driver.locally(event).await?.map(|token| token.to_text()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use fleetwire_common::envelope::keys::{RootKeys, Secret};
    use fleetwire_scheduler_core::Effects;

    const HOUR_US: u64 = 3_600_000_000;

    /// A core whose last fact was decided then.
    fn core(last_fact_at: Time) -> Core {
        let mut core = Core::new(Config {
            cluster: "c".into(),
            keys: RootKeys::new(Secret::new([1; 32])),
            authority_sha256: [2; 32],
            addresses: Vec::new(),
            incarnation_id: [3; 16],
            seed: 4,
            heartbeat_interval: Duration::from_secs(30),
            software: "test".into(),
            accept_restore: false,
            policy: Policy::default(),
        });
        core.start(last_fact_at, &mut Effects::new());
        core
    }

    #[test]
    fn cluster_time_never_goes_back_and_a_far_jump_needs_a_word() {
        let clock = ClusterClock::from_wall();
        let wall = clock.now();
        let far = core(Time(wall.0 - 30 * HOUR_US));
        let error = set_clock(&clock, wall, &far, false).unwrap_err();
        assert!(matches!(error, StartError::ClockAhead { ahead_h: 30 }), "{error}");
        assert!(error.to_string().contains("--accept-clock"));
        set_clock(&clock, wall, &far, true).unwrap();
        set_clock(&clock, wall, &core(Time(wall.0 - 23 * HOUR_US)), false).unwrap();
        assert!(clock.now().since(wall) < Duration::from_secs(60), "the wall clock is believed");

        // A clock that was set back: cluster time goes on where the journal ended.
        set_clock(&clock, wall, &core(Time(wall.0 + 5 * HOUR_US)), false).unwrap();
        assert!(clock.now() >= Time(wall.0 + 5 * HOUR_US));
    }
}
