//! Which faults a seed has, and how often: swarm testing (Groce et al., ISSTA 2012). A seed with every
//! fault on hides what only shows when one of them is off, so each seed draws its own set.

use crate::random::Random;
use fleetwire_scheduler_core::Policy;
use std::time::Duration;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// An agent's process is killed and started again; what runs on the device goes on.
    AgentCrash,
    /// A device loses its power: its agent, its processes and what its disk had not synced are gone.
    Reboot,
    /// The scheduler is killed, at any point between two steps, and started again.
    SchedulerCrash,
    /// An agent's connection breaks.
    AgentConnection,
    /// A client's connection breaks.
    ClientConnection,
    /// An agent is cut off for a while.
    Partition,
    /// An agent is cut off in one direction only.
    OneWay,
    /// Nothing moves on an agent's connection for some seconds, which may make its frames stale.
    RadioGap,
    /// The scheduler stands still: SIGSTOP, or a suspended host.
    SchedulerPause,
    /// A device is suspended: its agent and its processes stand still, its boot-time clock does not.
    Suspend,
    /// A frame is delivered a second time.
    Replay,
    /// A device comes back with another disk: whatever its agent knew is gone.
    Wipe,
    /// An agent is stopped in good order, and started again.
    Goodbye,
    /// An agent says that another agent's attempt completed.
    Impostor,
    /// A process is killed between two things that it does, or in the middle of writing its journal.
    KilledAtWork,
    /// A disk says once that it could not sync.
    FailedSync,
    /// A disk is full for a while.
    FullDisk,
    /// A disk can only be read for a while.
    ReadOnlyDisk,
    /// A disk takes seconds to sync for a while.
    SlowDisk,
    /// The supervisor of a running attempt is killed.
    SupervisorKilled,
    /// A device's spawner takes seconds to fork for a while.
    LateSpawner,
    /// A device's clock is fast or slow from now on.
    ClockDrift,
    /// A device's clock jumps ahead.
    ClockJump,
    /// A device's card is copied into a second one, which takes the same name for itself until faults stop.
    Clone,
    /// The scheduler's whole data is copied; the next time that copy takes the original's place. The original is
    /// gone, or comes back in its turn.
    RestoredBackup,
}

/// All of them.
pub const ALL: [Fault; 25] = [
    Fault::AgentCrash,
    Fault::Reboot,
    Fault::SchedulerCrash,
    Fault::AgentConnection,
    Fault::ClientConnection,
    Fault::Partition,
    Fault::OneWay,
    Fault::RadioGap,
    Fault::SchedulerPause,
    Fault::Replay,
    Fault::Impostor,
    Fault::Wipe,
    Fault::Goodbye,
    Fault::Suspend,
    Fault::KilledAtWork,
    Fault::FailedSync,
    Fault::FullDisk,
    Fault::ReadOnlyDisk,
    Fault::SlowDisk,
    Fault::SupervisorKilled,
    Fault::LateSpawner,
    Fault::ClockDrift,
    Fault::ClockJump,
    Fault::Clone,
    Fault::RestoredBackup,
];

/// How large the cluster of a seed is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Drawn, and mostly small: quick, and closer to the limits of a cluster.
    Drawn,
    /// The measure of speed: 10 agents, 100 tasks, 6 minutes of misfortune.
    Standard,
}

/// What a run is like.
#[derive(Clone, Debug)]
pub struct Setting {
    /// How many agents.
    pub agents: usize,
    /// How many clients.
    pub clients: usize,
    /// How many jobs the clients submit.
    pub jobs: usize,
    /// How many tasks all jobs have together at least: more jobs are submitted until then.
    pub tasks_min: u64,
    /// Tasks in one job at most.
    pub tasks_max: u32,
    /// How long faults go on.
    pub active: Duration,
    /// The faults that are on, with the mean time between two of them.
    pub faults: Vec<(Fault, Duration)>,
    /// The longest delay of a connection.
    pub delay_max: Duration,
    /// The longest that making facts durable takes.
    pub sync_max: Duration,
    /// How often, of a thousand, releasing effects lags behind the sync.
    pub lag_permille: u32,
    /// How often the scheduler sums its journal up, on average, and an agent a quarter as often; zero: never.
    pub snapshot_every: Duration,
    /// How long ended jobs are kept.
    pub ended_kept: Duration,
    /// How often, of a thousand, a crash of the scheduler takes what its disk had not synced.
    pub power_permille: u32,
    /// After what time of waiting an agent is reserved for it.
    pub reserve_after: Duration,
}

impl Setting {
    /// Nothing goes wrong, and everything is quick: for stories, which bring their own misfortune.
    pub fn calm() -> Setting {
        Setting {
            agents: 3,
            clients: 1,
            jobs: 0,
            tasks_min: 0,
            tasks_max: 10,
            active: Duration::from_secs(60),
            faults: Vec::new(),
            delay_max: Duration::from_millis(5),
            sync_max: Duration::from_millis(2),
            lag_permille: 0,
            snapshot_every: Duration::ZERO,
            ended_kept: Policy::default().ended_kept,
            power_permille: 1_000,
            reserve_after: Policy::default().reserve.after,
        }
    }

    /// What a seed draws.
    pub fn swarm(scale: Scale, random: &mut Random) -> Setting {
        let (active_s, agents) = (random.between(40, 360), random.between(1, 8) as usize);
        let (active_s, agents, tasks_min) = match scale {
            Scale::Drawn => (active_s, agents, 0),
            Scale::Standard => (360, 10, 100),
        };
        let active = Duration::from_secs(active_s);
        let mut faults = Vec::new();
        let share = random.between(0, 1_000) as u32;
        for fault in ALL {
            let every = Duration::from_millis(random.skewed(5_000, active.as_millis() as u64));
            if random.chance(share) {
                faults.push((fault, every));
            }
        }
        Setting {
            agents,
            clients: random.between(1, 3) as usize,
            jobs: random.between(1, 8) as usize,
            tasks_min,
            tasks_max: random.skewed(1, 40) as u32,
            active,
            faults,
            delay_max: Duration::from_micros(random.skewed(200, 400_000)),
            sync_max: Duration::from_micros(random.skewed(50, 200_000)),
            lag_permille: if random.chance(500) { random.between(0, 500) as u32 } else { 0 },
            snapshot_every: Duration::from_secs(if random.chance(600) { random.skewed(5, 200) } else { 0 }),
            ended_kept: match random.chance(200) {
                true => Duration::from_secs(random.between(0, 100)),
                false => Policy::default().ended_kept,
            },
            power_permille: random.between(0, 1_000) as u32,
            // A generator of its own: what else is drawn stays as it was.
            reserve_after: Duration::from_millis(random.clone().fork(0x2e5).skewed(100, 30_000)),
        }
    }
}
