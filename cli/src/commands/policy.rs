//! The commands about queues and the policy: `queues`, `policy show`, `policy set`, `policy check`.

use super::{now_ms, print, print_json};
use crate::{args::PolicyAction, error::CliError, table};
use fleetwire_client::{Client, policyfile, views::PolicyView};
use fleetwire_common::{
    ids::Name,
    policy::{Ageing, ClusterPolicy, Placing, Preempt, QueueRule, Quota, Reserve, Rules},
};
use std::{path::Path, time::Duration};

/// `fleetwire queues`.
pub async fn queues(client: &Client, as_json: bool) -> Result<(), CliError> {
    let policy = client.policy().await?;
    if as_json { print_json(&policy.queues) } else { print(&table::text(&table::queues(&policy.queues))) }
}

/// `fleetwire policy show` and `set`.
pub async fn policy(client: &Client, action: &PolicyAction, as_json: bool) -> Result<(), CliError> {
    match action {
        PolicyAction::Check { file } => check(file, as_json),
        PolicyAction::Set { file } => {
            let policy = policyfile::load(file)?;
            client.set_policy(&policy).await?;
            told(&policy, "set", "the policy is set: {} queues", as_json)
        }
        PolicyAction::Show => {
            let view = client.policy().await?;
            if as_json {
                return print_json(&view);
            }
            let set = match (&view.set_by, view.set_at_ms) {
                (Some(by), Some(at)) => format!("# set by {by} {}\n", table::ago(at, now_ms())),
                _ => String::from("# nobody has set a policy: this is what holds without one\n"),
            };
            print(&format!("{set}{}", policyfile::to_text(&read(&view))))
        }
    }
}

/// `fleetwire policy check`.
pub fn check(file: &Path, as_json: bool) -> Result<(), CliError> {
    let policy = policyfile::load(file)?;
    told(&policy, "valid", "the policy is valid: {} queues", as_json)
}

fn told(policy: &ClusterPolicy, done: &str, words: &str, as_json: bool) -> Result<(), CliError> {
    let queues = policy.queues().count();
    match as_json {
        true => print_json(&serde_json::json!({ done: true, "queues": queues })),
        false => print(&format!("{}\n", words.replace("{}", &queues.to_string()))),
    }
}

/// What a scheduler answered, which has checked it.
fn read(view: &PolicyView) -> ClusterPolicy {
    let queues = view.queues.iter().filter_map(|queue| {
        let quota = Quota {
            cpu: queue.quota.cpu_millicores,
            memory: queue.quota.memory_mb,
            gpu: queue.quota.gpu,
            storage: queue.quota.storage_gb,
        };
        let rule = QueueRule { weight: queue.weight, quota, priority_max: queue.priority_max };
        Some((Name::new(&queue.queue).ok()?, rule))
    });
    let every = view.ageing_every_ms.map(Duration::from_millis);
    let ageing = every.zip(view.ageing_most).map(|(every, most)| Ageing { every, most });
    let rules = Rules {
        placing: view.placing.map(|rule| Placing { pack: rule.pack, spread: rule.spread }),
        reserve: view.reserve.map(|rule| Reserve { after: Duration::from_millis(rule.after_ms), agents: rule.agents }),
        preempt: view.preempt.map(|rule| Preempt {
            gap: rule.gap,
            after: Duration::from_millis(rule.after_ms),
            per_minute: rule.per_minute,
            per_task: rule.per_task,
        }),
    };
    ClusterPolicy::new(queues, ageing).and_then(|policy| policy.with_rules(rules)).unwrap_or_default()
}
