//! A fixed set of seeds, each a whole cluster with its own misfortunes, and the promise that a seed is
//! always the same story.
#![allow(clippy::expect_used)]

use fleetwire_common::fb::{AttemptVerdict, ErrorCode, FactBody};
use fleetwire_sim::{ALL_FAULTS, Coverage, Failed, Scale, run, run_covering};
use std::collections::BTreeSet;

/// Runs seeds and shows the whole story of the first that breaks a promise.
fn hold(seeds: std::ops::Range<u64>, scale: Scale) {
    for seed in seeds {
        if let Err(Failed { seed, violation, .. }) = run(seed, scale, false) {
            let again = run(seed, scale, true).expect_err("promise P7: the seed fails again");
            let tail = again.trace.len().saturating_sub(80);
            let tail = again.trace.get(tail..).unwrap_or_default().join("\n");
            panic!("{tail}\nseed {seed} broke a promise: {violation}\nagain: fleetwire-sim --seed {seed} --trace");
        }
    }
}

#[test]
fn seeds_0_to_100_keep_every_promise() {
    hold(0..100, Scale::Drawn);
}

#[test]
fn seeds_100_to_200_keep_every_promise() {
    hold(100..200, Scale::Drawn);
}

/// Each of these once found a bug while devices were copied, backups put back and journals begun anew.
#[test]
fn seeds_that_once_broke_a_promise_keep_every_promise() {
    for seed in [5_332, 602_334, 613_121, 613_623] {
        hold(seed..seed + 1, Scale::Drawn);
    }
    hold(2_202_917..2_202_918, Scale::Standard);
}

/// Luck is no proof: what the fixed seeds never reach, they do not test.
#[test]
fn the_fixed_seeds_reach_every_arm_that_they_can() {
    let mut coverage = Coverage::default();
    // One of a few hundred has two attempts of which one makes way: known ones first, and then as many as it takes, since
    // whatever else is drawn makes other stories of them.
    let fixed = 400..800;
    let known = [802, 1_207, 1_341, 1_386, 1_660, 2_634];
    for seed in fixed.clone().chain(known).chain(fixed.end..3_200) {
        run_covering(seed, Scale::Drawn, &mut coverage).expect("as above");
        if seed >= fixed.end && missing(&coverage).is_empty() {
            break;
        }
    }
    let missing = missing(&coverage);
    let reached: Vec<String> = coverage.names().map(|(name, _)| name).collect();
    assert!(missing.is_empty(), "never reached, and not excused in NOT_REACHED: {missing:?}; reached: {reached:#?}");
}

/// What was not reached and has no excuse.
fn missing(coverage: &Coverage) -> Vec<String> {
    let reached: BTreeSet<String> = coverage.names().map(|(name, _)| name).collect();
    let facts = FactBody::ENUM_VALUES.iter().map(|body| match AGENT_FACTS.contains(body) {
        true => format!("agent's fact {body:?}"),
        false => format!("fact {body:?}"),
    });
    let verdicts = AttemptVerdict::ENUM_VALUES.iter().map(|verdict| format!("verdict {verdict:?}"));
    let refusals = ErrorCode::ENUM_VALUES.iter().map(|code| format!("refused as {code:?}"));
    let faults = ALL_FAULTS.iter().map(|fault| format!("fault {fault:?}"));
    let others = MUST_BE_REACHED.into_iter().map(str::to_owned);
    let all = facts.chain(verdicts).chain(refusals).chain(faults).chain(others);
    let excused = |name: &str| NOT_REACHED.iter().any(|(excused, _)| *excused == name);
    all.filter(|name| !reached.contains(name) && !excused(name)).collect()
}

/// The facts of an agent's journal.
const AGENT_FACTS: [FactBody; 5] = [
    FactBody::DataCreated,
    FactBody::AssignmentKept,
    FactBody::AttemptStarted,
    FactBody::ResultKept,
    FactBody::AttemptSettled,
];

/// What no fixed seed reaches, and why.
const NOT_REACHED: [(&str, &str); 33] = [
    ("fact AgentForgotten", "nobody is away for long enough; stories of the core cover it"),
    ("fact NONE", "there is no such fact"),
    ("fact TokenIssued", "everybody has joined before a simulation begins"),
    ("fact SnapshotBegun", "stands in snapshots only"),
    ("fact TokenKept", "stands in snapshots only"),
    ("fact SubmitKept", "stands in snapshots only"),
    ("fact JobKept", "stands in snapshots only"),
    ("fact TaskKept", "stands in snapshots only"),
    ("fact ScheduleKept", "stands in snapshots only"),
    ("refused as None", "is no refusal"),
    ("refused as MessageFormat", "honest peers write well; fuzzing covers it"),
    ("refused as DestinationNotFound", "nothing is routed yet"),
    ("refused as Validation", "clients submit only valid jobs; unit tests cover it"),
    ("refused as Internal", "there is no such refusal of a message"),
    ("refused as Stale", "the link says it, before the core hears of anything"),
    ("refused as UnknownMessage", "all are of one version"),
    ("refused as UnsupportedVersion", "all are of one version"),
    ("refused as TooLarge", "nothing is"),
    ("refused as Busy", "nothing reaches a bound"),
    ("refused as Damaged", "disks lose only what was not synced; stories of the core and real processes cover it"),
    ("refused as RateLimited", "nobody is quick enough"),
    ("refused as ShuttingDown", "the shell says it"),
    ("refused as DoesNotFit", "an agent says it, not the scheduler"),
    ("refused as UnknownAgent", "clients ask for no agents by name"),
    ("refused as Conflict", "no submit id is used twice"),
    ("refused as TooOld", "submits are repeated within a day"),
    ("refused as NameTaken", "everybody has joined"),
    ("refused as TokenUnknown", "everybody has joined"),
    ("refused as TokenExpired", "everybody has joined"),
    ("refused as TokenUsedUp", "everybody has joined"),
    ("refused as TokenWrongRole", "everybody has joined"),
    ("refused as BadCertificateRequest", "everybody has joined"),
    ("refused as AlreadyConnected", "it is a reason to close, see below"),
];

/// Ends, answers, steps of attempts and sessions, and what the processes go through.
const MUST_BE_REACHED: [&str; 115] = [
    "end Cancelled by GangLost",
    "waiting, Failed by GangLost",
    "a member of a gang is assigned: Restart",
    "a member of a gang is assigned: Replace",
    "a member of a gang is assigned: Fail",
    "end Cancelled by Preempted",
    "an agent is reserved",
    "on a reserved agent: what comes before",
    "on a reserved agent: what ends in time",
    "on a reserved agent: what leaves enough",
    "end Completed by Exited",
    "end Failed by Exited",
    "end Failed by Signalled",
    "end Failed by SpawnFailed",
    "end Cancelled by Cancelled",
    "end TimedOut by RunTimeout",
    "end Lost by AgentLost",
    "end Lost by SupervisorLost",
    "waiting, Skipped by DependencyUnmet",
    "waiting, Cancelled by FailureBudget",
    "waiting, TimedOut by DeadlinePassed",
    "end Cancelled by FailureBudget",
    "end Cancelled by DeadlinePassed",
    "assigned on Success of all of an entry",
    "assigned on Failure of all of an entry",
    "assigned on End of all of an entry",
    "assigned on Success of each of an array",
    "assigned on Failure of each of an array",
    "assigned on End of each of an array",
    "then Pending",
    "then Completed",
    "then Completed, the rival ends too",
    "then Failed",
    "then Failed, the rival ends too",
    "then Assigned",
    "then Cancelled",
    "then TimedOut",
    "then Lost",
    "scheduler says TaskAssignment",
    "scheduler says Registered",
    "scheduler says TaskCancellation",
    "scheduler says Ack of a request",
    "scheduler says Ack of a result",
    "scheduler says Ack of a heartbeat",
    "scheduler says Nack",
    "scheduler says LogRequest",
    "scheduler says LogChunk",
    "scheduler says JobSubmitted",
    "scheduler says Page",
    "agent says StatusUpdate",
    "agent says Heartbeat",
    "agent says Register",
    "agent says Deregister",
    "agent says TaskAcceptance",
    "scheduler killed at work",
    "scheduler ended by its disk",
    "scheduler failed to start",
    "agent killed at work",
    "agent ended by its disk",
    "agent failed to start",
    "snapshot taken",
    "snapshot read",
    "agent's snapshot taken",
    "agent's snapshot read",
    "backup made",
    "backup put back",
    "the original of a backup put back",
    "end Lost by Disconnected",
    "keep Original: the replacement makes way",
    "keep Replacement: the original makes way",
    "keep BestProgress: the replacement makes way",
    "lost work is not retried",
    "exclusive work ends",
    "exclusive work is tried again",
    "refused, for no agent could ever run it",
    "what holds a semaphore is assigned",
    "what holds several semaphores is assigned",
    "attempt Assigned → Accepted",
    "attempt Assigned → Running",
    "attempt Assigned → Suspect",
    "attempt Assigned → Ended",
    "attempt Assigned → Gone",
    "attempt Accepted → Running",
    "attempt Accepted → Gone",
    "attempt Running → Assigned",
    "attempt Running → Accepted",
    "attempt Running → Suspect",
    "attempt Running → Ended",
    "attempt Running → Gone",
    "attempt Suspect → Accepted",
    "attempt Suspect → Running",
    "attempt Suspect → Ended",
    "attempt Suspect → Gone",
    "attempt Ended → Gone",
    "attempt Gone → Ended",
    "attempt new → Assigned",
    "attempt new → Accepted",
    "attempt new → Running",
    "attempt new → Suspect",
    "attempt new → Ended",
    "attempt new → Gone",
    "session closed as MessageTimeout",
    "session closed as AlreadyConnected",
    "agent sends",
    "agent spawns",
    "agent cancels",
    "agent reads a log",
    "agent recycles a slot",
    "agent closes its session",
    "agent stages",
    "agent starts a staged one",
    "agent takes a staged one back",
    "end Cancelled by Released",
    "agent's start finds an attempt running",
    "agent's start finds an attempt ended",
];

#[test]
fn p7_a_seed_is_always_the_same_story() {
    for seed in [3, 17, 42, 77] {
        let (first, second) = (run(seed, Scale::Drawn, false), run(seed, Scale::Drawn, true));
        assert_eq!(first.ok(), second.ok(), "seed {seed}: with a trace or without, the same things happen");
    }
}
