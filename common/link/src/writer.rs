//! The writing task of a link.
//!
//! It takes whatever is queued, seals it at that moment (many small messages into one batch), and hands it
//! to the transport in one write: one message a write costs ten times more than sixteen. Bulk messages go
//! one at a time, each on a stream of its own with lower priority, so that at most one stream's window of
//! bulk is ever in flight and the control stream always finds room.

use crate::{
    clock::ClusterClock,
    closed::close_code,
    limits::{IDLE_BUFFER_BYTES_MAX, WRITE_BYTES},
    sender::Shared,
    weight::weight,
};
use bytes::Bytes;
use fleetwire_common::{envelope::Sealer, fb::ErrorCode, message::Message};
use quinn::{SendStream, VarInt};
use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until, timeout};

/// The transport's priority of bulk streams; the control stream has 0.
const BULK_PRIORITY: i32 = -1;

/// Seals and writes what a link's senders queue, until the link ends.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    control: SendStream,
    sealer: Sealer,
    clock: ClusterClock,
    drain_timeout: Duration,
    /// Messages taken from the queue and not sealed yet.
    batch: VecDeque<Message>,
    out: Vec<u8>,
    bulk: Bulk,
    /// Numbers bulk streams: the place among our unidirectional streams, from 1.
    window: Window,
}

/// The one bulk message that is being sent.
enum Bulk {
    None,
    /// Waits for the peer to allow another stream.
    Opening {
        message: Message,
        weight: usize,
    },
    Writing {
        stream: SendStream,
        rest: Bytes,
        weight: usize,
    },
    /// Everything was written; the peer acknowledges.
    Finishing {
        acknowledged: Pin<Box<dyn Future<Output = ()> + Send>>,
        weight: usize,
    },
}

/// Why the writer stops.
enum Stop {
    /// The connection has ended.
    Ended,
    /// The peer does something that no peer of ours does.
    Misbehaved(&'static str),
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        control: SendStream,
        sealer: Sealer,
        clock: ClusterClock,
        drain_timeout: Duration,
        send_window_bytes: u64,
    ) -> Writer {
        Writer {
            shared,
            control,
            sealer,
            clock,
            drain_timeout,
            batch: VecDeque::new(),
            out: Vec::new(),
            bulk: Bulk::None,
            window: Window::new(send_window_bytes),
        }
    }

    /// Writes `first`, a frame that opens the session, then whatever is queued.
    pub(crate) async fn run(mut self, first: Vec<u8>) {
        let stopped = match self.write(&first).await {
            Ok(()) => self.drive().await,
            Err(stop) => Err(stop),
        };
        if let Err(Stop::Misbehaved(what)) = stopped {
            self.shared.abort(ErrorCode::WrongState, what);
        }
        self.shared.end_queue();
    }

    async fn drive(&mut self) -> Result<(), Stop> {
        let mut deadline = None;
        loop {
            self.write_control().await?;
            self.begin_bulk();
            if self.shared.queue().closing.is_some() {
                let idle = matches!(self.bulk, Bulk::None);
                let end = *deadline.get_or_insert_with(|| Instant::now() + self.drain_timeout);
                if idle || Instant::now() >= end {
                    self.finish(end).await;
                    return Ok(());
                }
            }
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                biased;
                () = shared.work.notified() => {}
                moved = self.advance_bulk() => moved?,
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
                _ = shared.connection.closed() => return Err(Stop::Ended),
            }
        }
    }

    /// Everything that is queued for the control stream, a bounded write at a time.
    async fn write_control(&mut self) -> Result<(), Stop> {
        loop {
            if self.batch.is_empty() {
                std::mem::swap(&mut self.batch, &mut self.shared.queue().control);
            }
            if self.batch.is_empty() {
                // An idle link keeps no large buffers.
                if self.out.capacity() > IDLE_BUFFER_BYTES_MAX {
                    self.out = Vec::new();
                }
                if self.batch.capacity() > IDLE_BUFFER_BYTES_MAX / size_of::<Message>() {
                    self.batch = VecDeque::new();
                }
                return Ok(());
            }
            self.seal();
            let out = std::mem::take(&mut self.out);
            self.write(&out).await?;
            self.out = out;
        }
    }

    /// Seals from the batch until a write's worth is there. Its timestamps are of this moment.
    fn seal(&mut self) {
        self.out.clear();
        let now_ms = self.clock.now().as_ms();
        while !self.batch.is_empty() && self.out.len() < WRITE_BYTES {
            let taken = self.sealer.seal(now_ms, self.batch.make_contiguous(), &mut self.out);
            if taken == 0 {
                // Larger than its weight said: it needs a stream of its own.
                if let Some(message) = self.batch.pop_front() {
                    let weight = weight(&message);
                    self.shared.queue().redirect(message, weight);
                }
                continue;
            }
            let bytes = self.batch.drain(..taken.min(self.batch.len())).map(|message| weight(&message)).sum();
            self.shared.queue().sealed(taken, bytes);
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        if bytes.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        self.control.write_all(bytes).await.map_err(stop)?;
        if let Some(bytes) = self.window.on_write(bytes.len(), begun.elapsed()) {
            self.shared.connection.set_send_window(bytes);
        }
        Ok(())
    }

    fn begin_bulk(&mut self) {
        if matches!(self.bulk, Bulk::None)
            && let Some(message) = self.shared.queue().next_bulk()
        {
            let weight = weight(&message);
            self.bulk = Bulk::Opening { message, weight };
        }
    }

    /// One step of the bulk message, if there is one. Dropped while it waits, it loses nothing.
    async fn advance_bulk(&mut self) -> Result<(), Stop> {
        match &mut self.bulk {
            Bulk::None => std::future::pending().await,
            Bulk::Opening { .. } => {
                let stream = self.shared.connection.open_uni().await.map_err(|_| Stop::Ended)?;
                self.seal_bulk(stream)
            }
            Bulk::Writing { stream, rest, weight } => {
                stream.write_chunks(std::slice::from_mut(rest)).await.map_err(stop)?;
                if rest.is_empty() {
                    // The stream lives on in the transport until the peer has everything.
                    let stopped = stream.stopped();
                    let _ = stream.finish();
                    let acknowledged = Box::pin(async move {
                        let _ = stopped.await;
                    });
                    self.bulk = Bulk::Finishing { acknowledged, weight: *weight };
                }
                Ok(())
            }
            Bulk::Finishing { acknowledged, weight } => {
                acknowledged.await;
                self.shared.queue().bulk_sent(*weight);
                self.bulk = Bulk::None;
                Ok(())
            }
        }
    }

    fn seal_bulk(&mut self, stream: SendStream) -> Result<(), Stop> {
        let Bulk::Opening { message, weight } = std::mem::replace(&mut self.bulk, Bulk::None) else { return Ok(()) };
        let number = stream_number(stream.id()).ok_or(Stop::Misbehaved("no more bulk streams in this session"))?;
        let _ = stream.set_priority(BULK_PRIORITY);
        let mut out = Vec::with_capacity(weight);
        match self.sealer.seal_bulk(self.clock.now().as_ms(), number, &message, &mut out) {
            Ok(()) => self.bulk = Bulk::Writing { stream, rest: Bytes::from(out), weight },
            Err(error) => {
                // The weight was too low a guess. The stream stays empty, which receivers pass over.
                tracing::warn!(%error, kind = ?message.kind(), "a message is too large to be sent and is dropped");
                self.shared.queue().bulk_sent(weight);
            }
        }
        Ok(())
    }

    /// Finishes the control stream, waits until the peer has all of it, and closes.
    async fn finish(&mut self, deadline: Instant) {
        let stopped = self.control.stopped();
        let _ = self.control.finish();
        let _ = timeout(deadline.saturating_duration_since(Instant::now()), stopped).await;
        let closing = self.shared.queue().closing.clone();
        let (code, reason) = closing.unwrap_or((ErrorCode::None, String::new()));
        self.shared.connection.close(close_code(code), reason.as_bytes());
    }
}

/// A bulk stream's number: its place among its sender's unidirectional streams, from 1, as both sides
/// count them. 0 is the control stream.
pub(crate) fn stream_number(id: quinn::StreamId) -> Option<u32> {
    u32::try_from(id.index()).ok()?.checked_add(1)
}

fn stop(error: quinn::WriteError) -> Stop {
    match error {
        quinn::WriteError::Stopped(code) if code == VarInt::from_u32(0) => Stop::Misbehaved("a stream was stopped"),
        quinn::WriteError::Stopped(_) => Stop::Misbehaved("a stream was stopped with a code"),
        _ => Stop::Ended,
    }
}

/// How much the transport may hold: about a second of the rate at which the peer takes it, so that what
/// was sealed does not grow old there.
struct Window {
    max: u64,
    bytes: u64,
}

/// Writes that wait longer than this say something about the rate.
const SLOW_WRITE: Duration = Duration::from_millis(250);
/// Two full datagrams and a heartbeat always fit.
const WINDOW_MIN: u64 = 8 << 10;

impl Window {
    fn new(max: u64) -> Window {
        Window { max, bytes: max }
    }

    /// Takes note of a write; gives the new window if it changes.
    fn on_write(&mut self, bytes: usize, took: Duration) -> Option<u64> {
        let next = if took > SLOW_WRITE {
            let per_second = bytes as u128 * 1_000 / took.as_millis().max(1);
            u64::try_from(per_second).unwrap_or(self.max).clamp(WINDOW_MIN.min(self.max), self.max)
        } else if took < SLOW_WRITE / 4 && self.bytes < self.max {
            (self.bytes * 2).min(self.max)
        } else {
            self.bytes
        };
        let changed = next != self.bytes;
        self.bytes = next;
        changed.then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_follows_a_slow_link_down_and_a_fast_one_up() {
        let mut window = Window::new(128 << 10);
        assert_eq!(window.on_write(64 << 10, Duration::from_millis(1)), None);
        assert_eq!(window.on_write(64 << 10, Duration::from_secs(4)), Some(16 << 10));
        assert_eq!(window.on_write(64 << 10, Duration::from_secs(60)), Some(WINDOW_MIN));
        let grown: Vec<_> = std::iter::from_fn(|| window.on_write(100, Duration::from_millis(1))).collect();
        assert_eq!(grown.last(), Some(&(128 << 10)));
    }
}
