//! The commands that change an agent: `agent cordon`, `uncordon`, `drain`, `forget`.

use super::{print, print_json};
use crate::{args::AgentAction, error::CliError};
use fleetwire_client::Client;
use fleetwire_common::fb;
use std::time::Duration;

/// How often a drain that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// `fleetwire agent ACTION`.
pub async fn change(client: &Client, action: &AgentAction, as_json: bool) -> Result<(), CliError> {
    let (name, done, words) = match action {
        AgentAction::Cordon { name, reason } => {
            client.change_agent(name, fb::AgentAction::Cordon, None, reason).await?;
            (name, "cordoned", String::from("is cordoned: it gets no more work, what runs there goes on"))
        }
        AgentAction::Uncordon { name } => {
            client.change_agent(name, fb::AgentAction::Uncordon, None, "").await?;
            (name, "uncordoned", String::from("gets work again"))
        }
        AgentAction::Drain { name, within, reason, wait } => {
            client.change_agent(name, fb::AgentAction::Drain, *within, reason).await?;
            match wait {
                true => (name, "drained", drained(client, name).await?),
                false => (name, "draining", left(client.agent(name).await?.running)),
            }
        }
        AgentAction::Forget { name } => {
            client.forget_agent(name).await?;
            (name, "forgotten", String::from("is forgotten: what it was assigned has ended there"))
        }
    };
    if as_json { print_json(&serde_json::json!({ done: name })) } else { print(&format!("agent {name} {words}\n")) }
}

/// Waits until nothing is left on an agent.
async fn drained(client: &Client, name: &str) -> Result<String, CliError> {
    loop {
        let agent = client.agent(name).await?;
        if agent.running == 0 {
            return Ok(left(0));
        }
        if agent.cordon.is_none() {
            return Ok(String::from("works again: someone has uncordoned it"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn left(running: u32) -> String {
    match running {
        0 => String::from("is drained: nothing runs there, and nothing will until it is uncordoned"),
        running => format!("drains: {running} attempts are left (`fleetwire agent drain --wait` waits for their end)"),
    }
}
