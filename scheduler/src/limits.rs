//! Bounds of the shell. What a peer may make us hold is in [`fleetwire_common::limits`].

use fleetwire_journal::BATCH_BYTES_MAX;
use std::time::Duration;

/// Inputs that wait for the driver; when it is full, nothing more is read from the transport.
pub(crate) const INPUTS_MAX: usize = 1_024;
/// Inputs handled in one turn, before what they decided is released.
pub(crate) const ARRIVED_MAX: usize = 1_024;
/// Inputs of control streams that are handled in a row while one of a bulk stream waits.
pub(crate) const SMALL_IN_A_ROW_MAX: usize = 16;
/// Effects that wait for their facts to be durable; when it is full, nothing more is taken in.
pub(crate) const OUTBOX_MAX: usize = 65_536;
/// About how many bytes these may hold; the same then.
pub(crate) const OUTBOX_BYTES_MAX: usize = 32 << 20;
/// Once a turn has decided facts of so many bytes, they are appended, and the next begin another batch:
/// far below the most that the journal takes as one.
pub(crate) const FACT_BYTES_AT_ONCE: usize = 4 << 20;
/// Bytes of facts that wait for the disk; when it is more, nothing more is taken in.
pub(crate) const FACT_BYTES_WAITING_MAX: usize = 64 << 20;
/// Bytes of specs that are kept with all their files, for the next task of the same array.
pub(crate) const SPECS_BYTES_MAX: usize = 8 << 20;
/// Frames and batch items of one session that may be refused …
pub(crate) const REFUSED_MAX: u32 = 100;
/// … within this time; a session of which more are is closed.
pub(crate) const REFUSED_WITHIN: Duration = Duration::from_secs(60);
/// How long what was decided may take to become durable, and so be answered, when the scheduler stops.
pub(crate) const SETTLE_WITHIN: Duration = Duration::from_secs(2);
/// How long closing links may take to send what is queued, when the scheduler stops.
pub(crate) const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// Of the data folder's layout.
pub(crate) const DATA_VERSION: u32 = 1;
/// The driver wakes at least this often: how it notices that it stood still.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// Standing still for less is nothing.
pub(crate) const STALL_MIN: Duration = Duration::from_secs(1);
/// The first join token lets this many agents in …
pub(crate) const FIRST_TOKEN_USES: u32 = 100;
/// … within this time.
pub(crate) const FIRST_TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);

// What one step adds to a batch: a job, and all that then is placed.
const _: () = assert!(FACT_BYTES_AT_ONCE + 2 * fleetwire_common::limits::BODY_BYTES_MAX <= BATCH_BYTES_MAX);
