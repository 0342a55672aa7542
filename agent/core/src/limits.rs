//! Every bound of the agent's core, beside those that it shares with its peers.

use std::time::Duration;

/// Between two reports of one attempt's progress.
pub const REPORT_INTERVAL: Duration = Duration::from_millis(500);
/// Bytes of final statuses that are under way at a time: what a session's send queue takes with ease,
/// and enough to keep a link of 100 ms busy at 20,000 small results a second.
pub const RESULTS_UNDER_WAY_BYTES_MAX: usize = 1 << 20;
/// Bytes of results that are kept before new work is refused: what an agent that lost its network may
/// hold in memory. Attempts that run at that moment may add their own.
pub const RESULTS_KEPT_BYTES_MAX: usize = 32 << 20;
/// Before a result that was refused for a reason that may pass is offered again.
pub const RESULT_RETRY: Duration = Duration::from_secs(1);
/// Attempts of which a session remembers that their cancellation came before their assignment: as many as
/// an agent may hold.
pub const OVERTAKEN_MAX: usize = fleetwire_common::limits::AGENT_ATTEMPTS_MAX;
/// Assignments that may wait for room: more than a slot's worth of the shortest tasks for the time of a round
/// trip with two syncs.
pub const BACKLOG_MAX: usize = 128;
/// Bytes of specs that may wait.
pub const BACKLOG_BYTES_MAX: usize = 1 << 20;
/// Bytes of what an attempt runs that are kept in the journal, as [`fleetwire_common::job::TaskSpec::bytes`] counts:
/// one with more cannot be started from there, and its files would wear the flash.
pub const SPEC_KEPT_BYTES_MAX: usize = 16 << 10;
/// Staged attempts for each that runs: 10 ms of the shortest processes, in which the agent can do other things …
pub const STAGED_PER_RUN: usize = 8;
/// … and in all: each has a slot and a file descriptor on its way.
pub const STAGED_MAX: usize = 64;
/// How long the scheduler may take to answer a `Register`.
pub const REGISTER_WITHIN: Duration = Duration::from_secs(60);
/// Heartbeats in a row that wanted an answer and got none, until the session is given up.
pub const UNANSWERED_MAX: u32 = 3;
/// The shortest heartbeat interval that a scheduler can ask for.
pub const HEARTBEAT_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// The longest.
pub const HEARTBEAT_INTERVAL_MAX: Duration = Duration::from_secs(3_600);
/// After a reconnect the running attempts are reported again in groups of this many …
pub const REFRESH_GROUP: usize = 64;
/// … with this much between two groups.
pub const REFRESH_INTERVAL: Duration = Duration::from_millis(10);
/// The longest grace between SIGTERM and SIGKILL.
pub const KILL_GRACE_MAX: Duration = Duration::from_secs(3_600);
