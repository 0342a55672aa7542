//! What the device has, and what of it is in use.
//!
//! Only what is needed is read: memory and cpu times from sysinfo, limits of the cgroup that the agent
//! lives in, free space of the file system that the data folder lies on. A sample for a heartbeat costs
//! some tens of µs.

use crate::config::CapacityConfig;
use fleetwire_common::resources::Resources;
use std::{fs, path::Path};

/// Samples of what is in use.
#[derive(Debug)]
pub(crate) struct Probe {
    system: Option<sysinfo::System>,
    own: Option<sysinfo::Pid>,
    cores_m: u32,
    memory_mb: u32,
    memory_limited: bool,
    gpus: u32,
}

impl Probe {
    /// Looks at the device.
    pub fn new() -> Probe {
        let mut probe = Probe {
            system: sysinfo::System::new().ok(),
            own: sysinfo::get_current_pid().ok(),
            cores_m: cores_m(),
            memory_mb: 0,
            memory_limited: false,
            gpus: gpus(),
        };
        if let Some(system) = &mut probe.system {
            system.refresh_memory_specifics(sysinfo::MemoryRefreshKind::nothing().with_ram());
            system.refresh_cpu_usage();
            probe.memory_mb = megabytes(system.total_memory());
        }
        if let Some(limit) = probe.cgroup_memory() {
            let limit = megabytes(limit.total_memory);
            if limit > 0 && limit < probe.memory_mb {
                probe.memory_mb = limit;
                probe.memory_limited = true;
            }
        }
        probe
    }

    /// What attempts may take together: what was configured, else what is there less a reserve. `folder`
    /// must exist.
    pub fn capacity(&self, config: &CapacityConfig, folder: &Path) -> Resources {
        let (storage, _) = storage_gb(folder);
        Resources {
            cpu: config.cpu.unwrap_or(self.cores_m.saturating_sub(config.reserve_cpu)),
            memory: config.memory.unwrap_or(self.memory_mb.saturating_sub(config.reserve_memory)),
            gpu: config.gpu.unwrap_or(self.gpus),
            storage: config.storage.unwrap_or(storage.saturating_sub(config.reserve_storage)),
        }
    }

    /// What is in use on the device. Cpu is the mean since the sample before.
    pub fn usage(&mut self, folder: &Path) -> Resources {
        let limited = if self.memory_limited { self.cgroup_memory() } else { None };
        let Some(system) = &mut self.system else { return Resources::ZERO };
        system.refresh_cpu_usage();
        let share = system.global_cpu_usage().clamp(0.0, 100.0) / 100.0;
        let cores = u32::try_from(system.cpus().len()).unwrap_or(1);
        let memory = match limited {
            Some(limits) => limits.rss,
            None => {
                system.refresh_memory_specifics(sysinfo::MemoryRefreshKind::nothing().with_ram());
                system.used_memory()
            }
        };
        let (_, storage) = storage_gb(folder);
        // GPUs in use are not known without their maker's tools.
        Resources { cpu: (share * 1_000.0 * cores as f32) as u32, memory: megabytes(memory), gpu: 0, storage }
    }

    /// The limits of the agent's own cgroup. `System::cgroup_limits` reads the root's, which is wrong in
    /// a nested one.
    fn cgroup_memory(&mut self) -> Option<sysinfo::CGroupLimits> {
        let (system, own) = (self.system.as_mut()?, self.own?);
        let which = sysinfo::ProcessesToUpdate::Some(&[own]);
        system.refresh_processes_specifics(which, true, sysinfo::ProcessRefreshKind::nothing().without_tasks());
        system.process(own)?.cgroup_limits()
    }
}

/// The host's name, for people.
pub(crate) fn host() -> String {
    let uname = rustix::system::uname();
    let text = |field: &std::ffi::CStr| field.to_string_lossy().into_owned();
    format!(
        "{} ({} {} {})",
        text(uname.nodename()),
        text(uname.sysname()),
        text(uname.release()),
        text(uname.machine())
    )
}

/// The host's bare name.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The kernel's id of this boot; random if it has none.
pub(crate) fn boot_id() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    match u128::from_str_radix(&digits, 16) {
        Ok(id) if digits.len() == 32 => id.to_be_bytes(),
        _ => {
            let mut id = [0; 16];
            // Without randomness the id is zero, which says "unknown" as well.
            let _ = getrandom::fill(&mut id);
            id
        }
    }
}

/// Millicores: what the affinity mask allows, and no more than the cgroup's quota.
fn cores_m() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let cores_m = u32::try_from(cores).unwrap_or(u32::MAX).saturating_mul(1_000);
    // available_parallelism rounds a quota down to whole cores, and up to one.
    match cpu_quota_m() {
        Some(quota) if quota < cores_m.saturating_add(1_000) => quota,
        _ => cores_m,
    }
}

/// The tightest quota of the own cgroup and those above it, in millicores.
fn cpu_quota_m() -> Option<u32> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mut tightest: Option<u32> = None;
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let roots: &[&str] = if controllers.is_empty() {
            &["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        } else if controllers.split(',').any(|controller| controller == "cpu") {
            &["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"]
        } else {
            continue;
        };
        for root in roots {
            let folders = Path::new(path.trim_start_matches('/')).ancestors();
            for quota in folders.filter_map(|folder| read_quota_m(&Path::new(root).join(folder))) {
                tightest = Some(tightest.map_or(quota, |other| other.min(quota)));
            }
        }
    }
    tightest
}

fn read_quota_m(folder: &Path) -> Option<u32> {
    let read = |file: &str| fs::read_to_string(folder.join(file)).ok();
    if let Some(text) = read("cpu.max") {
        let (quota, period) = text.trim().split_once(' ')?;
        return millicores(quota, period);
    }
    millicores(read("cpu.cfs_quota_us")?.trim(), read("cpu.cfs_period_us")?.trim())
}

/// `max` and -1 are no quota.
fn millicores(quota_us: &str, period_us: &str) -> Option<u32> {
    let (quota, period): (u64, u64) = (quota_us.parse().ok()?, period_us.parse().ok()?);
    let millicores = quota.checked_mul(1_000)?.checked_div(period)?;
    u32::try_from(millicores.max(1)).ok()
}

/// NVIDIA's devices, as the driver numbers them.
fn gpus() -> u32 {
    let Ok(devices) = fs::read_dir("/dev") else { return 0 };
    let is_gpu = |name: &str| {
        name.strip_prefix("nvidia").is_some_and(|n| !n.is_empty() && n.bytes().all(|digit| digit.is_ascii_digit()))
    };
    let found = devices.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_gpu)).count();
    u32::try_from(found).unwrap_or_default()
}

/// Free and used space of the file system that the folder lies on, GB.
fn storage_gb(folder: &Path) -> (u32, u32) {
    let Ok(stat) = rustix::fs::statvfs(folder) else { return (0, 0) };
    let gb = |blocks: u64| u32::try_from(blocks.saturating_mul(stat.f_frsize) / 1_000_000_000).unwrap_or(u32::MAX);
    (gb(stat.f_bavail), gb(stat.f_blocks.saturating_sub(stat.f_bfree)))
}

fn megabytes(bytes: u64) -> u32 {
    u32::try_from(bytes / 1_000_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_has_something_and_a_reserve_is_held_back() {
        let mut probe = Probe::new();
        let folder = std::env::temp_dir();
        let all = CapacityConfig { reserve_cpu: 0, reserve_memory: 0, reserve_storage: 0, ..CapacityConfig::default() };
        let whole = probe.capacity(&all, &folder);
        assert!(whole.cpu > 0 && whole.memory > 0, "{whole:?}");
        let less = probe.capacity(&CapacityConfig { reserve_memory: 1, ..all.clone() }, &folder);
        assert_eq!(less.memory, whole.memory - 1);
        let set = probe.capacity(&CapacityConfig { cpu: Some(7), gpu: Some(3), ..all }, &folder);
        assert_eq!((set.cpu, set.gpu), (7, 3));
        assert!(probe.usage(&folder).memory > 0);
    }

    #[test]
    fn quotas_are_read_as_the_kernel_writes_them() {
        assert_eq!(millicores("50000", "100000"), Some(500));
        assert_eq!(millicores("max", "100000"), None);
        assert_eq!(millicores("-1", "100000"), None);
        assert_eq!(millicores("1", "0"), None);
    }

    #[test]
    fn the_boot_id_stays_the_same() {
        assert_eq!(boot_id(), boot_id());
    }
}
