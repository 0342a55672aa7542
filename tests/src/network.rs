//! A network of the test's own: one namespace for the coordinator with a bridge, one for each device with a
//! link to it, so that a device can be cut off, in both directions or in one, while the rest goes on.
//!
//! Needs root and iproute2; [`Network::new`] says what is missing. Everything goes when it is dropped.

use std::{
    path::Path,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

/// The addresses of the network: 10.231.0.1 is the coordinator, 10.231.0.(10 + N) the device N.
const SUBNET: &str = "10.231.0";

pub struct Network {
    /// What all its names begin with.
    tag: String,
    devices: usize,
}

impl Network {
    /// Makes it, or says why that cannot be done here.
    pub fn new(devices: usize) -> Result<Network, String> {
        if !Path::new("/proc/self/ns/net").exists() {
            return Err("this kernel has no network namespaces".to_owned());
        }
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let network = Network { tag: format!("fw{}n{number}", std::process::id()), devices };
        let hub = network.hub();
        ip(&["netns", "add", &hub])?;
        network.in_hub(&["link", "set", "lo", "up"])?;
        network.in_hub(&["link", "add", "br0", "type", "bridge"])?;
        network.in_hub(&["addr", "add", &format!("{SUBNET}.1/24"), "dev", "br0"])?;
        network.in_hub(&["link", "set", "br0", "up"])?;
        for device in 0..devices {
            let (name, port) = (network.device(device), format!("p{device}"));
            ip(&["netns", "add", &name])?;
            network.in_hub(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &name])?;
            network.in_hub(&["link", "set", &port, "master", "br0", "up"])?;
            let address = format!("{SUBNET}.{}/24", 10 + device);
            ip(&["-n", &name, "addr", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
        }
        Ok(network)
    }

    /// Where the coordinator listens.
    pub fn coordinator(&self) -> String {
        format!("{SUBNET}.1")
    }

    /// The coordinator's namespace.
    pub fn hub(&self) -> String {
        format!("{}hub", self.tag)
    }

    /// A device's namespace.
    pub fn device(&self, device: usize) -> String {
        format!("{}d{device}", self.tag)
    }

    /// Cuts a device off, both ways.
    pub fn cut(&self, device: usize) {
        let _ = self.in_hub(&["link", "set", &format!("p{device}"), "down"]);
    }

    /// What is sent to a device is lost; what it sends arrives.
    pub fn deafen(&self, device: usize) {
        let _ = self.in_hub(&["route", "add", "blackhole", &format!("{SUBNET}.{}/32", 10 + device)]);
    }

    /// What a device sends is lost; what is sent to it arrives.
    pub fn mute(&self, device: usize) {
        let _ = ip(&["-n", &self.device(device), "route", "add", "blackhole", &format!("{SUBNET}.1/32")]);
    }

    /// All is well again with a device.
    pub fn heal(&self, device: usize) {
        let _ = self.in_hub(&["link", "set", &format!("p{device}"), "up"]);
        let _ = self.in_hub(&["route", "del", "blackhole", &format!("{SUBNET}.{}/32", 10 + device)]);
        let _ = ip(&["-n", &self.device(device), "route", "del", "blackhole", &format!("{SUBNET}.1/32")]);
    }

    /// A device takes the coordinator's address, as a machine does that was restored from a copy of it. The
    /// coordinator itself goes on, and nobody reaches it.
    pub fn impersonate(&self, device: usize) {
        self.in_hub(&["addr", "del", &format!("{SUBNET}.1/24"), "dev", "br0"]).unwrap();
        ip(&["-n", &self.device(device), "addr", "add", &format!("{SUBNET}.1/24"), "dev", "eth0"]).unwrap();
        self.forget_neighbours();
    }

    /// The coordinator has its address again.
    pub fn restore(&self, device: usize) {
        ip(&["-n", &self.device(device), "addr", "del", &format!("{SUBNET}.1/24"), "dev", "eth0"]).unwrap();
        self.in_hub(&["addr", "add", &format!("{SUBNET}.1/24"), "dev", "br0"]).unwrap();
        self.forget_neighbours();
    }

    fn forget_neighbours(&self) {
        let _ = self.in_hub(&["neigh", "flush", "all"]);
        for device in 0..self.devices {
            let _ = ip(&["-n", &self.device(device), "neigh", "flush", "all"]);
        }
    }

    fn in_hub(&self, arguments: &[&str]) -> Result<(), String> {
        ip(&[&["-n", &self.hub()], arguments].concat())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for device in 0..self.devices {
            let _ = ip(&["netns", "del", &self.device(device)]);
        }
        let _ = ip(&["netns", "del", &self.hub()]);
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("ip (iproute2): {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("ip {}: {said}", arguments.join(" "))) }
}
