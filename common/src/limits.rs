//! Every bound on what a peer, a user or a disk may make us hold. One file, so that they can be
//! read together; `const` assertions hold those that depend on each other.

use std::time::Duration;

/// The codec's cap on a frame, length prefix included.
pub const FRAME_BYTES_CODEC_MAX: usize = 16 << 20;
/// A session's cap on a frame: 2 s at 1 Mbit/s. Larger bodies go as chunks on bulk streams.
pub const FRAME_BYTES_MAX: usize = 256 << 10;
/// A body up to this size is sent in one frame; above it, as chunks.
pub const BODY_BYTES_INLINE_MAX: usize = 192 << 10;
/// Data bytes in one `Chunk`.
pub const CHUNK_BYTES: usize = 128 << 10;
/// The largest body, decompressed or assembled from chunks.
pub const BODY_BYTES_MAX: usize = 16 << 20;
/// Bodies from this size on are tried with LZ4.
pub const COMPRESS_BYTES_MIN: usize = 1 << 10;
/// Messages in one batch.
pub const BATCH_ITEMS_MAX: usize = 1024;
/// A batch is closed once its items reach this size.
pub const BATCH_BYTES_MAX: usize = 48 << 10;
/// Bulk streams that one peer may have open at a time.
pub const BULK_STREAMS_MAX: usize = 2;

/// How far an envelope's timestamp may lie from the receiver's cluster time (seed 004).
pub const STALE_AFTER_MS: u64 = 5_000;

/// Metric names that one session may intern.
pub const METRIC_NAMES_MAX: usize = 1024;
/// Bytes of a metric's name.
pub const METRIC_NAME_BYTES_MAX: usize = 64;
/// Metrics in one status update.
pub const METRICS_MAX: usize = 64;
/// Bytes of a progress note, and of any message text that a peer sends us to keep.
pub const NOTE_BYTES_MAX: usize = 512;

/// Bytes of a name: of an agent, an operator, a job, a task entry or a label.
pub const NAME_BYTES_MAX: usize = 64;
/// Bytes of a label's or an environment variable's value.
pub const VALUE_BYTES_MAX: usize = 32 << 10;
/// Labels of an agent, or of a job, and annotations of one.
pub const LABELS_MAX: usize = 64;
/// Bytes of a job's label …
pub const LABEL_VALUE_BYTES_MAX: usize = 256;
/// … and of an annotation of it.
pub const ANNOTATION_BYTES_MAX: usize = 1 << 10;
/// Task entries in one job.
pub const TASK_ENTRIES_MAX: usize = 1024;
/// Tasks in one array.
pub const ARRAY_TASKS_MAX: u32 = 1_000_000;
/// Arguments of one task.
pub const ARGUMENTS_MAX: usize = 1024;
/// Environment variables of one task.
pub const ENVIRONMENT_MAX: usize = 256;
/// Constraints of one task.
pub const CONSTRAINTS_MAX: usize = 32;
/// Preferences of one task: agents are told apart by all combinations of them.
pub const PREFERENCES_MAX: usize = 4;
/// The largest weight of one, either way.
pub const PREFERENCE_WEIGHT_MAX: i16 = 1_000;
/// Values among which one constraint chooses …
pub const CONSTRAINT_VALUES_MAX: usize = 64;
/// … and bytes of each. A label's value that is longer matches no pattern.
pub const CONSTRAINT_VALUE_BYTES_MAX: usize = 256;
/// Semaphores of a task entry …
pub const SEMAPHORES_MAX: usize = 8;
/// … and units of one.
pub const SEMAPHORE_UNITS_MAX: u32 = 1_000_000;
/// Members of a gang …
pub const GANG_MAX: u32 = 256;
/// … and bytes of the address at which an agent's are reached: all of them are one value of the environment.
pub const ADDRESS_BYTES_MAX: usize = 127;
const _: () = assert!(GANG_MAX as usize * (ADDRESS_BYTES_MAX + 1) <= VALUE_BYTES_MAX);
/// Custom resources of an agent, or of a task entry …
pub const CUSTOM_RESOURCES_MAX: usize = 16;
/// … and the largest amount of one.
pub const CUSTOM_AMOUNT_MAX: u32 = 1_000_000_000;
/// Bytes of a pattern that a label's value is to match.
pub const PATTERN_BYTES_MAX: usize = 64;
/// Dependencies of one task entry …
pub const DEPENDENCIES_MAX: usize = 256;
/// … and of all entries of one job together.
pub const DEPENDENCIES_OF_JOB_MAX: usize = 4096;
/// Files that one task carries.
pub const FILES_MAX: usize = 256;
/// Bytes of all files of one job together.
pub const FILES_BYTES_MAX: usize = 1 << 20;
/// Bytes of a task's JSON parameters. The task finds them in one environment variable, and Linux takes at
/// most 128 KiB of those.
pub const PARAMETERS_BYTES_MAX: usize = 120 << 10;
/// Parameters that one entry sweeps over.
pub const SWEEP_AXES_MAX: usize = 16;
/// Values of all of them together; their combinations are as many as an array has tasks.
pub const SWEEP_VALUES_MAX: usize = 65_536;
/// Bytes of a job's FlatBuffer.
pub const JOB_BYTES_MAX: usize = 4 << 20;
/// Queues of a cluster, the default one included …
pub const QUEUES_MAX: usize = 64;
/// … the weight of one …
pub const QUEUE_WEIGHT_MAX: u32 = 1_000_000;
/// … and how many times as much as another's it may be.
pub const QUEUE_WEIGHTS_APART_MAX: u32 = 1_000;
/// How soon a priority may rise by one with waiting …
pub const AGEING_EVERY_MIN: Duration = Duration::from_secs(10);
/// … and how late.
pub const AGEING_EVERY_MAX: Duration = Duration::from_secs(366 * 86_400);
/// How much packing or spreading may weigh.
pub const PLACING_WEIGHT_MAX: u16 = 1_000;
/// Agents that a policy may keep free at a time.
pub const RESERVE_AGENTS_MAX: u16 = 1_024;
/// How many a policy may have give way, in a minute or of one task.
pub const PREEMPT_RATE_MAX: u32 = 1_000_000;
/// How soon after something began to wait a policy may reserve for it or make others give way …
pub const RULE_AFTER_MIN: Duration = Duration::from_millis(100);
/// … and how late.
pub const RULE_AFTER_MAX: Duration = Duration::from_secs(86_400);
/// Bytes of a task's result.
pub const RESULT_BYTES_MAX: usize = 64 << 10;
/// Attempts of one task that may fail.
pub const ATTEMPTS_MAX: u32 = 1_000;
/// Attempts that one agent may hold at a time.
pub const AGENT_ATTEMPTS_MAX: usize = 16_384;
/// Rows in one page of an answer.
pub const PAGE_ROWS_MAX: u32 = 1_000;
/// Bytes of log in one chunk.
pub const LOG_CHUNK_BYTES_MAX: u32 = 64 << 10;
/// The longest that a query may be held back for news.
pub const QUERY_WAIT_MS_MAX: u32 = 30_000;

/// The largest amounts that a request or an agent may name: a million cores, 1 PB of memory,
/// 65,536 GPUs, 1 EB of storage. Far above any device, and far from overflow when summed.
pub const RESOURCES_MAX: crate::resources::Resources =
    crate::resources::Resources { cpu: 1_000_000_000, memory: 1_000_000_000, gpu: 65_536, storage: 1_000_000_000 };

const _: () = assert!(BODY_BYTES_INLINE_MAX < FRAME_BYTES_MAX && CHUNK_BYTES < BODY_BYTES_INLINE_MAX);
const _: () = assert!(FRAME_BYTES_MAX <= FRAME_BYTES_CODEC_MAX && JOB_BYTES_MAX < BODY_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX * 2 < BODY_BYTES_INLINE_MAX);
