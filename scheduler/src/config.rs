//! What a scheduler is started with, by its command line or by `fleetwire dev`.

use fleetwire_common::ids::Name;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::PathBuf,
    time::Duration,
};

/// Settings of a scheduler.
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    /// Its data folder; made on the first start.
    pub data: PathBuf,
    /// Where it listens, UDP. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where others reach it, `host:port`, tried in order. Empty: worked out from `listen`.
    pub advertise: Vec<String>,
    /// The cluster's name, on the first start only. `None` makes one up.
    pub cluster: Option<Name>,
    /// How often agents say that they are alive.
    pub heartbeat_interval: Duration,
    /// Believes a wall clock that is more than [`CLOCK_JUMP_MAX`] ahead of the last fact.
    pub accept_clock: bool,
    /// How long an agent may be away until it is not expected back.
    pub forget_after: Duration,
    /// Goes on with a journal that agents have proved to be a restored backup.
    pub accept_restore: bool,
    /// Facts in the journal after which a snapshot is made; at most [`SNAPSHOT_FACTS_MAX`].
    pub snapshot_facts: u64,
    /// Bytes of facts after which one is made, if that comes first.
    pub snapshot_bytes: u64,
    /// Where segments of the journal go that snapshots have replaced; `None` = they are used again or removed.
    pub archive: Option<PathBuf>,
}

/// A snapshot is made after so many facts …
pub const SNAPSHOT_FACTS: u64 = 1_000_000;
/// … and can be put off until so many: what a start reads behind it is bounded by that.
pub const SNAPSHOT_FACTS_MAX: u64 = 2_000_000;
/// A snapshot is made after so many bytes of facts.
pub const SNAPSHOT_BYTES: u64 = 512 << 20;

/// How far the wall clock may be ahead of the last fact without a word from the operator: a clock that
/// is wrong would be kept for ever, because cluster time never goes back.
pub const CLOCK_JUMP_MAX: Duration = Duration::from_secs(24 * 3600);
/// The port on which a scheduler listens.
pub const PORT: u16 = 7450;
/// How long an agent may be away until it is not expected back.
pub const FORGET_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);
/// How often agents say that they are alive.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(30);

impl SchedulerConfig {
    /// The usual settings for a data folder.
    pub fn new(data: impl Into<PathBuf>) -> SchedulerConfig {
        SchedulerConfig {
            data: data.into(),
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT),
            advertise: Vec::new(),
            cluster: None,
            heartbeat_interval: HEARTBEAT_INTERVAL,
            accept_clock: false,
            forget_after: FORGET_AFTER,
            accept_restore: false,
            snapshot_facts: SNAPSHOT_FACTS,
            snapshot_bytes: SNAPSHOT_BYTES,
            archive: None,
        }
    }

    /// Where others reach a scheduler that is bound to `bound`.
    pub(crate) fn addresses(&self, bound: SocketAddr) -> Vec<String> {
        let port = bound.port();
        if !self.advertise.is_empty() {
            let with_port = |address: &String| match has_port(address) {
                true => address.clone(),
                false => format!("{address}:{port}"),
            };
            return self.advertise.iter().map(with_port).collect();
        }
        if !bound.ip().is_unspecified() {
            return vec![bound.to_string()];
        }
        // Loopback last: on another machine it leads to nobody, on this one it always works.
        let loopback = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        outward_address()
            .into_iter()
            .map(|ip| SocketAddr::new(ip, port))
            .chain([loopback])
            .map(|a| a.to_string())
            .collect()
    }
}

fn has_port(address: &str) -> bool {
    match address.rsplit_once(':') {
        // An IPv6 address without brackets has colons, but no port.
        Some((host, port)) => port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']')),
        None => false,
    }
}

/// The address from which this machine would speak to the world. Nothing is sent for that.
fn outward_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // TEST-NET-1 (RFC 5737): routed like any other address, and nobody's.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advertised_addresses_get_the_port_that_was_bound() {
        let advertise = ["coordinator.lan", "10.0.0.1:9000", "[::1]:9000", "[::1]"].map(String::from).to_vec();
        let config = SchedulerConfig { advertise, ..SchedulerConfig::new("x") };
        let bound = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 7450);
        assert_eq!(config.addresses(bound), ["coordinator.lan:7450", "10.0.0.1:9000", "[::1]:9000", "[::1]:7450"]);
    }

    #[test]
    fn a_bound_address_is_the_one_to_reach_and_the_wildcard_is_not() {
        let config = SchedulerConfig::new("x");
        assert_eq!(
            config.addresses("127.0.0.1:5".parse().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)))),
            ["127.0.0.1:5"]
        );
        let wide = config.addresses(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 7450));
        assert_eq!(wide.last().map(String::as_str), Some("127.0.0.1:7450"));
        assert!(!wide.iter().any(|address| address.starts_with("0.0.0.0")));
    }
}
