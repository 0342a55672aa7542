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
use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};
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
    window: Window,
    /// When a closing link stops trying to send what is queued.
    deadline: Option<Instant>,
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
    /// The link closes and the peer does not take what is queued.
    Late,
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
            deadline: None,
        }
    }

    /// Writes `first`, a frame that opens the session, then whatever is queued.
    // In a box, or the task would have room for it twice: as what it was given, and as what it works on.
    pub(crate) async fn run(mut self: Box<Self>, first: Vec<u8>) {
        self.set_window();
        let stopped = match self.write(&first).await {
            Ok(()) => self.drive().await,
            Err(stop) => Err(stop),
        };
        match stopped {
            Ok(()) | Err(Stop::Late) => self.close(),
            Err(Stop::Misbehaved(what)) => {
                // A peer that closes stops reading first: then its reason is on its way.
                if timeout(self.drain_timeout, self.shared.connection.closed()).await.is_err() {
                    self.shared.abort(ErrorCode::WrongState, what);
                }
            }
            Err(Stop::Ended) => {}
        }
        self.shared.end_queue();
    }

    async fn drive(&mut self) -> Result<(), Stop> {
        loop {
            self.write_control().await?;
            let idle = matches!(self.bulk, Bulk::None);
            if idle {
                self.window.on_idle();
            }
            if self.deadline.is_some() && idle {
                self.finish().await;
                return Ok(());
            }
            let shared = Arc::clone(&self.shared);
            let deadline = self.deadline;
            tokio::select! {
                biased;
                () = shared.work.notified() => {}
                moved = self.advance_bulk() => moved?,
                () = at(deadline) => return Err(Stop::Late),
            }
        }
    }

    /// A link that is closing has a deadline.
    fn note_closing(&mut self, closing: bool) {
        if closing && self.deadline.is_none() {
            self.deadline = Some(Instant::now() + self.drain_timeout);
        }
    }

    /// Takes what is queued, under one lock: everything for the control stream, and the next bulk message if
    /// none is being sent.
    fn take(&mut self) -> Result<(), Stop> {
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.queue();
        if queue.gone {
            return Err(Stop::Ended);
        }
        if self.batch.is_empty() {
            std::mem::swap(&mut self.batch, &mut queue.control);
        }
        if matches!(self.bulk, Bulk::None)
            && let Some(message) = queue.next_bulk()
        {
            let weight = weight(&message);
            self.bulk = Bulk::Opening { message, weight };
        }
        self.note_closing(queue.closing.is_some());
        Ok(())
    }

    /// Everything that is queued for the control stream, a bounded write at a time.
    async fn write_control(&mut self) -> Result<(), Stop> {
        loop {
            self.take()?;
            if self.batch.is_empty() {
                self.shared.taken.notify_waiters();
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

    // §seal-4
    /// Seals from the batch until a write's worth is there. Its timestamps are of this moment.
    fn seal(&mut self) {
        self.out.clear();
        let now_ms = self.clock.now().as_ms();
        let enough = WRITE_BYTES.min(self.window.bytes());
        while !self.batch.is_empty() && self.out.len() < enough {
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

    /// One write on the control stream. A peer that does not take it holds up neither the link's end nor
    /// anything but its own link.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        if bytes.is_empty() {
            return Ok(());
        }
        let (shared, drain_timeout) = (Arc::clone(&self.shared), self.drain_timeout);
        let deadline = &mut self.deadline;
        let mut waited = false;
        {
            let mut write = pin!(self.control.write_all(bytes));
            let mut write = pin!(poll_fn(|context| {
                let written = write.as_mut().poll(context);
                waited |= written.is_pending();
                written
            }));
            loop {
                tokio::select! {
                    biased;
                    written = &mut write => break written.map_err(stop)?,
                    // New work waits; a wish to close begins its deadline.
                    () = shared.work.notified() => {
                        if deadline.is_none() && shared.queue().closing.is_some() {
                            *deadline = Some(Instant::now() + drain_timeout);
                        }
                    }
                    () = at(*deadline) => return Err(Stop::Late),
                }
            }
        }
        self.on_written(bytes.len());
        if waited && self.window.on_wait(bytes.len(), self.shared.connection.rtt()) {
            self.set_window();
        }
        Ok(())
    }

    /// Adapts what the transport may hold to the rate at which the peer takes it.
    fn on_written(&mut self, bytes: usize) {
        if self.window.on_write(bytes, Instant::now()) {
            self.set_window();
        }
    }

    fn set_window(&self) {
        self.shared.connection.set_send_window(self.window.bytes() as u64);
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
                let written = stream.write_chunks(std::slice::from_mut(rest)).await.map_err(stop)?;
                let (bytes, all) = (written.bytes, rest.is_empty());
                if all {
                    // The stream lives on in the transport until the peer has everything.
                    let stopped = stream.stopped();
                    let _ = stream.finish();
                    let acknowledged = Box::pin(async move {
                        let _ = stopped.await;
                    });
                    self.bulk = Bulk::Finishing { acknowledged, weight: *weight };
                }
                self.on_written(bytes);
                Ok(())
            }
            Bulk::Finishing { acknowledged, weight } => {
                acknowledged.await;
                self.shared.queue().bulk_sent(*weight);
                self.shared.taken.notify_waiters();
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
                self.shared.taken.notify_waiters();
            }
        }
        Ok(())
    }

    /// Finishes the control stream and waits until the peer has all of it.
    async fn finish(&mut self) {
        let stopped = self.control.stopped();
        let _ = self.control.finish();
        tokio::select! {
            _ = stopped => {}
            () = at(self.deadline) => {}
        }
    }

    fn close(&self) {
        let closing = self.shared.queue().closing.clone();
        let (code, reason) = closing.unwrap_or((ErrorCode::None, String::new()));
        self.shared.connection.close(close_code(code), reason.as_bytes());
    }
}

/// Waits until that moment; for ever if there is none.
pub(crate) async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
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
/// was sealed does not grow old there. It begins low, because a new link's rate is not known, and doubles
/// while the peer takes more than it holds.
struct Window {
    max: usize,
    bytes: usize,
    /// Since when there was always something to write, and how much was written since.
    busy: Option<(Instant, usize)>,
    /// Bytes of writes that had to wait, since the window last grew for it.
    waited: usize,
}

/// Also a link of 25 kbit/s empties this within the tolerance.
const WINDOW_FIRST: usize = 8 << 10;
/// Enough for a few datagrams on the slowest of links.
const WINDOW_MIN: usize = 4 << 10;
/// Twice the window of a link with this round trip is gone within half a second.
const ROUND_TRIP_GROWING_MAX: Duration = Duration::from_millis(250);

impl Window {
    fn new(max: u64) -> Window {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        Window { max, bytes: WINDOW_FIRST.min(max), busy: None, waited: 0 }
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    /// Nothing waits to be written: the peer takes more than there is.
    fn on_idle(&mut self) {
        self.busy = None;
    }

    /// Takes note of bytes that the transport took; says whether the window changed.
    fn on_write(&mut self, bytes: usize, now: Instant) -> bool {
        let (since, written) = self.busy.get_or_insert((now, 0));
        *written += bytes;
        // All but a window's worth of it surely has been acknowledged; less than that says nothing yet.
        if *written <= 2 * self.bytes {
            return false;
        }
        let took_us = now.duration_since(*since).as_micros().max(1);
        let gone = (*written - self.bytes) as u128;
        let per_second = usize::try_from(gone * 1_000_000 / took_us).unwrap_or(usize::MAX);
        self.busy = Some((now, 0));
        let next = if per_second < self.bytes / 2 {
            per_second.max(WINDOW_MIN)
        } else if per_second > self.bytes + self.bytes / 5 {
            self.bytes * 2
        } else {
            self.bytes
        };
        let next = next.min(self.max);
        let changed = next != self.bytes;
        self.bytes = next;
        changed
    }

    /// Takes note of a write that had to wait for room, although there may be nothing to write between two
    /// such; says whether the window changed. The round trip is that of datagrams which left while the window
    /// was full, so it holds how long a window's worth takes to leave.
    fn on_wait(&mut self, bytes: usize, round_trip: Duration) -> bool {
        self.waited += bytes;
        if self.waited <= 2 * self.bytes || self.bytes == self.max {
            return false;
        }
        self.waited = 0;
        if round_trip > ROUND_TRIP_GROWING_MAX {
            return false;
        }
        self.bytes = (2 * self.bytes).min(self.max);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes 8 KiB at a time at a rate (bytes a second) for some seconds.
    fn run(window: &mut Window, now: &mut Instant, rate: u64, seconds: u64) {
        for _ in 0..(rate * seconds).div_ceil(8 << 10) {
            *now += Duration::from_micros((8 << 10) * 1_000_000 / rate);
            window.on_write(8 << 10, *now);
        }
    }

    #[test]
    fn the_window_holds_about_a_second_of_the_links_rate() {
        let (mut window, mut now) = (Window::new(128 << 10), Instant::now());
        assert_eq!(window.bytes(), WINDOW_FIRST);
        run(&mut window, &mut now, 100 << 20, 1);
        assert_eq!(window.bytes(), 128 << 10);
        // The radio fades to 100 kbit/s, and comes back.
        run(&mut window, &mut now, 12_500, 60);
        assert!((WINDOW_MIN..=25_000).contains(&window.bytes()), "{}", window.bytes());
        run(&mut window, &mut now, 1 << 20, 10);
        assert_eq!(window.bytes(), 128 << 10);
    }

    #[test]
    fn bursts_that_had_to_wait_open_the_window_of_a_quick_link_and_not_of_a_slow_one() {
        for (round_trip_ms, expected) in [(1, 128 << 10), (600, WINDOW_FIRST)] {
            let (mut window, mut now) = (Window::new(128 << 10), Instant::now());
            for _ in 0..1_000 {
                // Less than the window at a time, and nothing in between.
                now += Duration::from_millis(1);
                window.on_write(4 << 10, now);
                window.on_wait(4 << 10, Duration::from_millis(round_trip_ms));
                window.on_idle();
            }
            assert_eq!(window.bytes(), expected);
        }
    }

    #[test]
    fn pauses_say_nothing_about_the_rate() {
        let (mut window, mut now) = (Window::new(128 << 10), Instant::now());
        run(&mut window, &mut now, 100 << 20, 1);
        for _ in 0..100 {
            window.on_idle();
            now += Duration::from_secs(30);
            window.on_write(500, now);
        }
        assert_eq!(window.bytes(), 128 << 10);
    }
}
