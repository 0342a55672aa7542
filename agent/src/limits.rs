//! Bounds of the agent's shell.

use std::time::Duration;

/// Effects that may wait for the disk before nothing more is taken in.
pub const OUTBOX_MAX: usize = 65_536;
/// News of attempts that are handled before what they decided is written.
pub const NEWS_MAX: usize = 256;
/// Bytes of output that may wait to be sent; requests for more are refused until they have left.
pub const LOG_BYTES_WAITING_MAX: usize = 4 << 20;
/// The identity's known time is written down when it is this much later: a device whose clock is not
/// set at a start goes on from there.
pub const KNOWN_TIME_INTERVAL: Duration = Duration::from_secs(24 * 3_600);
/// The longest sleep of the driver: how late it may notice that the device was suspended.
pub const SLEEP_MAX: Duration = Duration::from_secs(60);
/// How long a stopping agent waits for its tasks, and then for its goodbye to be on the way.
pub const STOP_WITHIN: Duration = Duration::from_secs(5);
/// A session that lasted this long was a good one: the next delay is short again.
pub const SESSION_LASTED: Duration = Duration::from_secs(5);
/// The longest delay between two tries to join.
pub const JOIN_DELAY_MAX: Duration = Duration::from_secs(30);
/// How long news of attempts gather while a backlog flows: their supervisors go on by themselves meanwhile.
pub const GATHER: Duration = Duration::from_millis(4);
