//! What an agent is told by whoever starts it: the command line, or `fleetwire dev`.

use fleetwire_common::{custom::Custom, fb, ids::Name, token::JoinToken};
use std::{path::PathBuf, time::Duration};

/// How an agent is set up.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Its data folder: identity, journal, slots. Made when it is missing.
    pub data: PathBuf,
    /// How to join the cluster; needed on the first start only.
    pub join: Option<JoinToken>,
    /// Its name in the cluster, on the first start; `None` = the host's.
    pub name: Option<Name>,
    /// Labels that constraints are matched against.
    pub labels: Vec<(String, String)>,
    /// Where the tasks of others reach its own: a name or an IP address; `None` = where it connects from.
    pub advertise: Option<String>,
    /// The kinds of work it takes; empty = all.
    pub agent_types: Vec<fb::AgentType>,
    /// What attempts may take together.
    pub capacity: CapacityConfig,
    /// What else it offers.
    pub custom: Custom,
    /// Between heartbeats, until the scheduler says otherwise.
    pub heartbeat_interval: Duration,
    /// Slots on disk: attempts that can run at a time, and whose output can be read after they ended.
    pub slots_max: u32,
    /// Bytes kept of each of stdout and stderr of an attempt.
    pub output_bytes_max: u64,
    /// What happens to running attempts when the agent is asked to stop.
    pub on_stop: OnStop,
}

/// What happens to running attempts when the agent is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStop {
    /// They go on under their supervisors; the next start of the agent finds them.
    LeaveRunning,
    /// They are stopped, and waited for.
    Cancel,
}

/// What attempts may take together. Absent = what is there, less the reserve.
#[derive(Clone, Debug)]
pub struct CapacityConfig {
    /// Millicores.
    pub cpu: Option<u32>,
    /// MB.
    pub memory: Option<u32>,
    /// Count.
    pub gpu: Option<u32>,
    /// GB.
    pub storage: Option<u32>,
    /// Millicores held back.
    pub reserve_cpu: u32,
    /// MB held back, for the system and the agent itself.
    pub reserve_memory: u32,
    /// GB held back, for outputs and the journal.
    pub reserve_storage: u32,
}

impl Default for CapacityConfig {
    fn default() -> CapacityConfig {
        CapacityConfig {
            cpu: None,
            memory: None,
            gpu: None,
            storage: None,
            reserve_cpu: 0,
            reserve_memory: RESERVE_MEMORY_MB,
            reserve_storage: RESERVE_STORAGE_GB,
        }
    }
}

impl AgentConfig {
    /// The usual, for a data folder.
    pub fn new(data: impl Into<PathBuf>) -> AgentConfig {
        AgentConfig {
            data: data.into(),
            join: None,
            name: None,
            labels: Vec::new(),
            advertise: None,
            agent_types: Vec::new(),
            capacity: CapacityConfig::default(),
            custom: Custom::default(),
            heartbeat_interval: HEARTBEAT_INTERVAL,
            slots_max: SLOTS_MAX,
            output_bytes_max: OUTPUT_BYTES_MAX,
            on_stop: OnStop::LeaveRunning,
        }
    }
}

/// A device keeps this much memory for itself, MB.
pub const RESERVE_MEMORY_MB: u32 = 128;
/// A device keeps this much storage for itself, GB.
pub const RESERVE_STORAGE_GB: u32 = 1;
/// Between heartbeats.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(30);
/// Slots on disk.
pub const SLOTS_MAX: u32 = 256;
/// Bytes kept of each output.
pub const OUTPUT_BYTES_MAX: u64 = 1 << 20;
