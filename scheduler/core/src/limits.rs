//! Bounds that nobody tunes: those that replay depends on, and those that keep one step short. What may be
//! tuned is in [`crate::policy::Policy`], what the wire bounds in `fleetwire_common::limits`.

use std::time::Duration;

/// How long a submit id is kept, and with it the promise that a repeat is known. Replay depends on it.
pub const SUBMIT_KEPT: Duration = Duration::from_secs(24 * 3600);
/// How long a token is kept after its end, so that its late use gets the right answer. Replay depends on it.
pub const TOKEN_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Metric names that are shared by all tasks; those beyond are kept with each task. Replay depends on it.
pub const METRIC_NAMES_SHARED_MAX: usize = 4_096;

/// How far ahead of cluster time a client's clock may be when it makes a submit id.
pub const SUBMIT_AHEAD_MAX: Duration = Duration::from_secs(24 * 3600);
/// The longest that a token may be good for.
pub const TOKEN_LIFE_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
/// How long an agent that had been away before a start has to return, however long that was.
pub const RETURN_WITHIN: Duration = Duration::from_secs(3600);
/// Jobs forgotten in one step, or for one result: each may hold a million tasks, whose memory is given back at once.
pub const FORGOTTEN_PER_STEP: usize = 4;
/// How much work an agent is given ahead, by the pace of what ended there: a few round trips. What takes longer
/// than this is never given ahead.
pub const BACKLOG_TIME: Duration = Duration::from_millis(50);
/// Between two looks at what waits on an agent.
pub const BACKLOG_LOOK: Duration = Duration::from_millis(100);
/// Classes that are asked for a task to be given ahead.
pub const BACKLOG_TURNS_MAX: usize = 8;
/// Bytes of a spec that is given ahead; a larger one would rather wait here than in an agent's memory.
pub const BACKLOG_SPEC_BYTES_MAX: usize = 8 << 10;
/// Agents on which is looked one by one when something could start there, those on which the least is missing …
pub const EARLIEST_AGENTS_MAX: usize = 512;
/// … and attempts on them; or on all, where a quota is in the way; or holders, where a semaphore is.
pub const EARLIEST_ATTEMPTS_MAX: usize = 8_192;
/// Agents that are looked at for one plan, for all of its entries together, …
pub const PLAN_LOOKS_MAX: usize = 100_000;
/// … groups of agents in what is said of one entry …
pub const PLAN_OBSTACLES_MAX: usize = 8;
/// … and agents to which its tasks would go.
pub const PLAN_PLACES_MAX: usize = 4;
/// What a `PlanJob` counts as among the messages that a session may send: it may look at all agents again and again.
pub const PLAN_COST: u32 = 1_000;
/// Schedules that there may be, …
pub const SCHEDULES_MAX: usize = 512;
/// … and bytes of all of them: each holds its job.
pub const SCHEDULES_BYTES_MAX: usize = 32 << 20;
/// What a schedule's texts count as among these.
pub const SCHEDULE_TEXT_BYTES_MAX: usize = 512;
/// Bytes of a cron.
pub const CRON_BYTES_MAX: usize = 128;
/// How far ahead a cron's next moment may be: one on a leap day comes within eight years.
pub const CRON_AHEAD_MAX: Duration = Duration::from_secs(9 * 366 * 86_400);
/// The longest that a missed moment may be made up for: each minute of it is looked at.
pub const CATCH_UP_MAX: Duration = Duration::from_secs(86_400);
/// A moment is never missed because of so little: a restart takes as long.
pub const CATCH_UP_LEAST: Duration = Duration::from_secs(60);
/// Between two tries to submit a schedule's job.
pub const SCHEDULE_RETRY: Duration = Duration::from_secs(30);
/// What a `SetSchedule` counts as among the messages that a session may send: its cron's next moment is looked for, day by day if need be.
pub const SCHEDULE_COST: u32 = 100;
/// Groups of agents in one explanation.
pub const OBSTACLES_MAX: usize = 64;
/// Agents that are looked at for one submit, to see whether any could run its tasks; what is left then may wait.
pub const SUITED_LOOKS_MAX: usize = 1_000_000;
/// Of what agents lack, what a submit is refused with.
pub const NEAREST_MAX: usize = 3;
/// Classes that are kept although no job has tasks of them.
pub const IDLE_CLASSES_MAX: usize = 256;
/// Agents that may not be at their places in the order in which agents are filled, until somebody asks.
pub const CHANGES_LEFT_MAX: usize = 64;
/// Classes that are asked whether they may go on a reserved agent.
pub const BACKFILL_TURNS_MAX: usize = 64;
/// Waiting classes, the first in their order, that are looked at for one that has waited for too long.
pub const RESERVING_TURNS_MAX: usize = 64;
/// Agents that are looked at in one search for the one to be reserved; the next search goes on where it ended.
pub const RESERVING_AGENTS_MAX: usize = 4_096;
/// Attempts that are looked at in one such search.
pub const RESERVING_ATTEMPTS_MAX: usize = 8_192;
/// Attempts on a reserved agent that are looked at again whenever one of them has ended; where there are more, now and then.
pub const RESERVED_ATTEMPTS_MAX: usize = 64;
/// Waiting classes for which others may be asked to make way at one time.
pub const PREEMPTING_TURNS_MAX: usize = 4;
/// Agents of which one may be reserved at a time.
pub const AGENTS_PER_RESERVATION: usize = 4;
/// How long an assignment may take to reach its agent and start there, where it is to have ended by some time.
pub const START_WITHIN: Duration = Duration::from_secs(10);
/// Agents that are looked at one by one, where no more suit a request.
pub const AUDIENCE_FEW: usize = 32;
/// What a `Register` counts as among the messages that a session may send: it makes the scheduler go
/// through everything that the agent holds.
pub const REGISTER_COST: u32 = 100;
/// What an `Explain` counts as: it looks at every agent.
pub const EXPLAIN_COST: u32 = 100;
/// A query's answer counts as one message more for each so many rows: a full page as a hundred, so that
/// what a session can have answered at once is some tens of MB, and not the GB of as many small messages.
pub const ROWS_PER_COST: usize = 10;
/// A result counts as one message more for each so many bytes.
pub const RESULT_BYTES_PER_COST: usize = 1 << 10;

/// A file or a result of more bytes than this is kept beside the journal, as a blob, and not in memory.
pub const BODY_INLINE_BYTES_MAX: usize = 1 << 10;
