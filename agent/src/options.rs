//! The command line of `fleetwire-agent`.

use crate::config::{AgentConfig, CapacityConfig, OUTPUT_BYTES_MAX, OnStop, SLOTS_MAX};
use clap::Parser;
use fleetwire_common::{
    custom::{Custom, CustomError},
    fb,
    gang::is_address,
    ids::Name,
    resources::{parse_cpu, parse_memory, parse_storage},
    token::JoinToken,
};
use std::{path::PathBuf, time::Duration};

/// Runs on a device and does the work that a Fleetwire scheduler assigns to it.
#[derive(Debug, Parser)]
#[command(name = "fleetwire-agent", version, max_term_width = 100)]
pub struct Options {
    /// Join the cluster with this token (from `fleetwire token create`). Needed on the first start only
    #[arg(long, value_name = "TOKEN", env = "FLEETWIRE_JOIN", hide_env_values = true, value_parser = JoinToken::from_text)]
    join: Option<JoinToken>,
    /// Folder for the agent's identity, journal and running tasks
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Name in the cluster; unique, and kept from the first start on [default: the host's name]
    #[arg(long, value_parser = Name::new)]
    name: Option<Name>,
    /// Label that jobs can ask for; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Name or IP address at which tasks on other agents reach those here [default: what the scheduler sees]
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    advertise: Option<String>,
    /// Kind of work to take; may be repeated [default: all]
    #[arg(long = "kind", value_name = "KIND", value_parser = parse_kind)]
    kinds: Vec<fb::AgentType>,
    /// Cores to offer, such as `2` or `500m` [default: what is there, less the reserve]
    #[arg(long, value_parser = parse_cpu)]
    cpu: Option<u32>,
    /// Memory to offer, such as `4GB` [default: what is there, less the reserve]
    #[arg(long, value_parser = parse_memory)]
    memory: Option<u32>,
    /// GPUs to offer [default: what is there]
    #[arg(long)]
    gpu: Option<u32>,
    /// Storage to offer, such as `10GB` [default: what is free, less the reserve]
    #[arg(long, value_parser = parse_storage)]
    storage: Option<u32>,
    /// Whatever else there is to count, such as `fpga=2` or `license/ansys=4`; may be repeated
    #[arg(long = "resource", value_name = "NAME=COUNT", value_parser = Custom::parse)]
    custom: Vec<(String, u64)>,
    /// Cores to hold back
    #[arg(long, value_name = "CPU", default_value = "0m", value_parser = parse_cpu)]
    reserve_cpu: u32,
    /// Memory to hold back
    #[arg(long, value_name = "MEMORY", default_value = "128MB", value_parser = parse_memory)]
    reserve_memory: u32,
    /// Storage to hold back
    #[arg(long, value_name = "STORAGE", default_value = "1GB", value_parser = parse_storage)]
    reserve_storage: u32,
    /// Time between heartbeats, until the scheduler says otherwise
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    heartbeat: Duration,
    /// Slots for tasks: how many can run at a time, and how many outputs are kept
    #[arg(long, value_name = "COUNT", default_value_t = SLOTS_MAX)]
    slots: u32,
    /// Bytes to keep of each of a task's stdout and stderr
    #[arg(long, value_name = "BYTES", default_value_t = OUTPUT_BYTES_MAX)]
    output_bytes: u64,
    /// Stop running tasks when the agent is asked to stop, instead of leaving them to the next start
    #[arg(long)]
    stop_tasks: bool,
    /// What to log: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log: tracing::level_filters::LevelFilter,
}

impl Options {
    /// What they mean.
    pub fn into_config(self) -> Result<AgentConfig, CustomError> {
        Ok(AgentConfig {
            custom: Custom::new(self.custom.iter().map(|(name, count)| (name.as_str(), *count)))?,
            join: self.join,
            name: self.name,
            labels: self.labels,
            advertise: self.advertise,
            agent_types: self.kinds,
            capacity: CapacityConfig {
                cpu: self.cpu,
                memory: self.memory,
                gpu: self.gpu,
                storage: self.storage,
                reserve_cpu: self.reserve_cpu,
                reserve_memory: self.reserve_memory,
                reserve_storage: self.reserve_storage,
            },
            heartbeat_interval: self.heartbeat,
            slots_max: self.slots,
            output_bytes_max: self.output_bytes,
            on_stop: if self.stop_tasks { OnStop::Cancel } else { OnStop::LeaveRunning },
            ..AgentConfig::new(self.data)
        })
    }
}

/// Why a value on the command line is refused.
#[derive(Debug, thiserror::Error)]
enum OptionError {
    #[error("`{found}` is not a label: expected KEY=VALUE")]
    Label { found: String },
    #[error("{0}")]
    LabelKey(#[from] fleetwire_common::ids::NameError),
    #[error(
        "`{found}` is no address: expected a name or an IP address of at most 127 letters, digits, `.`, `:`, `-`, `_`, `[`, `]` and `%`"
    )]
    Address { found: String },
    #[error("`{found}` is no kind of work: expected trainer, inferencer, crawler, labeller or rater")]
    Kind { found: String },
    #[error("`{found}` is not a time: expected a number with a unit, such as `500ms`, `30s` or `5m`")]
    Duration { found: String },
}

fn parse_label(text: &str) -> Result<(String, String), OptionError> {
    let (key, value) = text.split_once('=').ok_or_else(|| OptionError::Label { found: text.to_owned() })?;
    Ok((Name::new(key)?.to_string(), value.to_owned()))
}

fn parse_address(text: &str) -> Result<String, OptionError> {
    if is_address(text) { Ok(text.to_owned()) } else { Err(OptionError::Address { found: text.to_owned() }) }
}

fn parse_kind(text: &str) -> Result<fb::AgentType, OptionError> {
    let known = fb::AgentType::ENUM_VALUES.iter().copied();
    let named = |kind: &fb::AgentType| kind.variant_name().is_some_and(|name| name.eq_ignore_ascii_case(text));
    known.into_iter().find(named).ok_or_else(|| OptionError::Kind { found: text.to_owned() })
}

fn parse_duration(text: &str) -> Result<Duration, OptionError> {
    let wrong = || OptionError::Duration { found: text.to_owned() };
    let unit = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(unit);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit_ms).filter(|ms| *ms > 0).map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_full_command_line_is_understood() {
        let line = "fleetwire-agent --data /d --name pi-1 --label zone=a --label tier=b --kind rater --kind Trainer \
                    --cpu 1.5 --memory 2GB --gpu 1 --storage 10GB --heartbeat 500ms --stop-tasks --log debug \
                    --resource fpga=2 --resource license/ansys=4 --advertise pi-1.local";
        let config = Options::try_parse_from(line.split_whitespace()).unwrap().into_config().unwrap();
        assert_eq!(config.custom.to_string(), "2 fpga, 4 license/ansys");
        assert_eq!(config.labels, [("zone".into(), "a".into()), ("tier".into(), "b".into())]);
        assert_eq!(config.agent_types, [fb::AgentType::Rater, fb::AgentType::Trainer]);
        assert_eq!((config.capacity.cpu, config.capacity.memory), (Some(1_500), Some(2_000)));
        assert_eq!(config.heartbeat_interval, Duration::from_millis(500));
        assert_eq!(config.on_stop, OnStop::Cancel);
        assert_eq!(config.advertise.as_deref(), Some("pi-1.local"));
        assert!(config.join.is_none());
    }

    #[test]
    fn mistakes_are_named() {
        for (wrong, named) in [
            ("--data d --join x", "fwj1-"),
            ("--data d --kind cook", "no kind of work"),
            ("--data d --label x", "KEY=VALUE"),
            ("--data d --heartbeat 30", "not a time"),
            ("--data d --name a/b", "has the character"),
            ("--data d --cpu much", "not an amount"),
            ("--data d --resource fpga", "NAME=COUNT"),
            ("--data d --advertise a,b", "is no address"),
            ("--data d --resource gpu=1", "key of its own"),
            ("--name a", "--data"),
        ] {
            let line = ["fleetwire-agent"].into_iter().chain(wrong.split_whitespace());
            let error = Options::try_parse_from(line).unwrap_err().to_string();
            assert!(error.contains(named), "{wrong}: {error}");
        }
    }
}
