//! Every bound of the process executor, in one place.
//!
//! Whatever a task, a job or the disk controls is held against one of these before it is kept.

use std::time::Duration;

/// Longest task id, bytes.
pub const TASK_ID_BYTES_MAX: usize = 512;
/// Most inline files of one assignment.
pub const FILES_MAX: usize = 1024;
/// Inline files of one assignment together, bytes.
pub const FILES_BYTES_MAX: usize = 1 << 20;
/// Longest relative path of an inline file or a result, bytes.
pub const PATH_BYTES_MAX: usize = 1024;
/// Most components of such a path.
pub const PATH_DEPTH_MAX: usize = 32;
/// Most arguments, and most environment variables, of one command.
pub const STRINGS_MAX: usize = 65_536;
/// Most folders of `PATH` in which a program is looked for.
pub const SEARCH_FOLDERS_MAX: usize = 64;
/// A whole spawn request, bytes.
pub const REQUEST_BYTES_MAX: usize = 4 << 20;
/// A request up to this size travels inside the message; a larger one in a memory file beside it.
pub const REQUEST_INLINE_BYTES_MAX: usize = 32 << 10;
/// Largest result of a task, bytes.
pub const RESULT_BYTES_MAX: usize = 64 << 10;
/// Longest report line, bytes, without its newline.
pub const REPORT_LINE_BYTES_MAX: usize = 1024;
/// Longest metric name, bytes.
pub const METRIC_NAME_BYTES_MAX: usize = 64;
/// Most metric names of one attempt.
pub const METRICS_MAX: usize = 64;
/// Shortest time between two reports of one attempt to the agent, µs.
pub const REPORT_INTERVAL_US: u64 = 100_000;
/// An attempt that ends sooner than this is announced once, with its end, µs.
pub const STARTED_DELAY_US: u64 = 10_000;
/// Largest event message from a supervisor, bytes.
pub const EVENT_BYTES_MAX: usize = 16 << 10;
/// Largest verdict, bytes: a result, the final report and the message.
pub const VERDICT_BYTES_MAX: usize = RESULT_BYTES_MAX + EVENT_BYTES_MAX;
/// Longest message of a verdict, bytes.
pub const MESSAGE_BYTES_MAX: usize = 4096;
/// Bytes of one answer to a log request.
pub const LOG_PIECE_BYTES_MAX: usize = 256 << 10;
/// Slots have numbers below this.
pub const SLOTS_LIMIT: u32 = 65_536;
/// Between two looks at the locks of running slots. The only wake-up of an agent whose tasks are
/// silent; it finds supervisors that were killed and attempts that were adopted.
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(500);
/// Shortest time between two starts of a spawner.
pub const SPAWNER_RESTART_INTERVAL: Duration = Duration::from_secs(1);
/// Most supervisors that wait for another attempt.
pub const IDLE_SUPERVISORS_MAX: u32 = 8;
/// How long a supervisor waits for another attempt before it exits.
pub const SUPERVISOR_IDLE_MAX: Duration = Duration::from_secs(2);
/// How long the spawner leaves a request to idle supervisors before it forks another, µs.
pub const IDLE_HEAD_START_US: u64 = 1_000;
/// Rounds in which strays of a lost attempt are looked for before the next sweep goes on.
pub const STRAY_ROUNDS_MAX: u32 = 20;

const _: () = assert!(REQUEST_BYTES_MAX >= 2 * FILES_BYTES_MAX);
const _: () = assert!(EVENT_BYTES_MAX > METRICS_MAX * (METRIC_NAME_BYTES_MAX + 16) + REPORT_LINE_BYTES_MAX);
