//! Processes that stand still, as on a host that is suspended or overloaded: a scheduler that was stopped for longer than
//! `lost_after` loses no agent and starts nothing anew; an agent that was stopped for longer than its messages may be
//! old gets another session, and its work goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fleetwire_tests::{Cluster, wait_for};
use std::time::Duration;

/// Longer than `lost_after` of the first job, and than the 5 s that a message may be old.
const PAUSE: Duration = Duration::from_secs(7);

#[test]
fn a_scheduler_that_stood_still_for_longer_than_lost_after_loses_no_agent() {
    let cluster = Cluster::with_agents(2);
    let job = cluster.submit(&cluster.ledger_job("lost_after = '2s'", 6));
    cluster.wait_for_count(&job, "running", 4);
    let scheduler = cluster.scheduler.as_ref().unwrap();
    scheduler.pause(PAUSE);
    wait_for("it to notice", || scheduler.log().contains("this process stood still").then_some(()));
    cluster.finish_undisturbed(&job, 6);
}

#[test]
fn an_agent_that_stood_still_gets_another_session_and_its_work_goes_on() {
    let mut cluster = Cluster::with_agents(1);
    let job = cluster.submit(&cluster.ledger_job("lost_after = '1m'", 4));
    cluster.wait_for_count(&job, "running", 2);
    let agent = cluster.agent("a0");
    agent.pause(PAUSE);
    wait_for("its session to be replaced", || agent.log().contains("connecting again").then_some(()));
    cluster.wait_for_agents(1);
    cluster.finish_undisturbed(&job, 4);
}
