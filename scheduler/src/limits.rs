//! Bounds of the shell. What a peer may make us hold is in [`fleetwire_common::limits`].

use std::time::Duration;

/// Inputs that wait for the driver; when it is full, nothing more is read from the transport.
pub(crate) const INPUTS_MAX: usize = 1_024;
/// Inputs handled in one turn, before what they decided is appended.
pub(crate) const ARRIVED_MAX: usize = 1_024;
/// Effects that wait for their facts to be durable; when it is full, nothing more is taken in.
pub(crate) const OUTBOX_MAX: usize = 65_536;
/// Frames handed over at a time.
pub(crate) const FRAMES_AT_ONCE: usize = 64;
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
