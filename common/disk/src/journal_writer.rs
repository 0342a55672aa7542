//! The thread that writes the journal.
//!
//! Invariants: batches are written in the order in which they were given; a position is announced only
//! once a sync has returned it; after the first failure nothing is written and nothing announced any
//! more, except that failure, once. While one sync runs batches queue up, and the next covers them all.
//! While the disk has room, one segment more is prepared than the reserve says, for bodies; once that is gone and
//! there is room for no other, the writer says that it is low, and what must still be written uses the reserve. No
//! segment of bodies begins in the reserve, as long as whoever places them keeps to what the writer says.

use crate::snapshotter::Snapshotter;
use fleetwire_common::{facts::FactBatch, ids::Position};
use fleetwire_journal::{AppendError, Disk, DiskError, Journal, PreparedSegment, SyncError};
use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};
use thiserror::Error;

/// How a journal is written.
#[derive(Clone, Copy, Debug)]
pub struct WriterConfig {
    /// Batches that may wait. More let a burst pass without waiting; what they hold is memory.
    pub queue_batches: usize,
    /// After this long without a batch, a mark is written: one small write, without a sync.
    pub idle: Duration,
    /// Segments that are always prepared, for facts alone; one more is for bodies, and another when the one that is
    /// written is half full. Each costs its disk space. With 0 nothing is prepared: the append that needs the next
    /// segment waits for its zeros.
    pub reserve: usize,
}

impl Default for WriterConfig {
    fn default() -> WriterConfig {
        WriterConfig { queue_batches: 64, idle: Duration::from_millis(50), reserve: RESERVE }
    }
}

/// Why the writer ended. What was not announced durable may be lost: the process should stop.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WriterFailed {
    /// A batch could not be written.
    #[error("could not append to the journal: {0}")]
    Append(#[from] AppendError),
    /// What was written could not be made durable.
    #[error("could not make the journal durable: {0}")]
    Sync(#[from] SyncError),
    /// The thread panicked.
    #[error("the journal's thread panicked")]
    Panicked,
}

/// The writer has ended, and said why to `on_durable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the journal is not being written any more")]
pub struct WriterStopped;

/// Why a batch was not taken.
#[derive(Debug, Error)]
pub enum TryAppendError {
    /// As many wait as may. The batch comes back.
    #[error("too many batches wait for the journal")]
    Full(FactBatch),
    /// The writer has ended.
    #[error(transparent)]
    Stopped(#[from] WriterStopped),
}

/// A running writer.
#[derive(Debug)]
pub struct JournalWriter {
    queue: SyncSender<FactBatch>,
    spares: Arc<Spares>,
    room: Arc<Room>,
    thread: JoinHandle<Result<Position, WriterFailed>>,
}

impl JournalWriter {
    /// Starts the thread. `on_durable` is called there, with every new durable position or, last, with
    /// the failure; it should only pass it on.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start<D>(
        journal: Journal<D>,
        config: WriterConfig,
        on_durable: impl FnMut(Result<Position, WriterFailed>) + Send + 'static,
    ) -> io::Result<JournalWriter>
    where
        D: Disk + Clone + Send + 'static,
        D::File: Send,
    {
        JournalWriter::begin(journal, config, None, on_durable)
    }

    /// The same for a journal of which snapshots are made. `replayed` is what was read behind the last one, facts
    /// and bytes.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start_with_snapshots<D>(
        journal: Journal<D>,
        config: WriterConfig,
        (snapshotter, replayed): (Snapshotter<D::File>, (u64, u64)),
        on_durable: impl FnMut(Result<Position, WriterFailed>) + Send + 'static,
    ) -> io::Result<JournalWriter>
    where
        D: Disk + Clone + Send + 'static,
        D::File: Send,
    {
        let (facts, bytes) = replayed;
        let snapshots = Snapshots { snapshotter, facts, bytes, last: 0, running: false };
        JournalWriter::begin(journal, config, Some(snapshots), on_durable)
    }

    fn begin<D>(
        journal: Journal<D>,
        config: WriterConfig,
        snapshots: Option<Snapshots<D::File>>,
        on_durable: impl FnMut(Result<Position, WriterFailed>) + Send + 'static,
    ) -> io::Result<JournalWriter>
    where
        D: Disk + Clone + Send + 'static,
        D::File: Send,
    {
        let (queue, batches) = sync_channel(config.queue_batches);
        let spares = Arc::new(Spares { batches: Mutex::default(), max: config.queue_batches });
        let room = Arc::new(Room { low: AtomicBool::new(false), blob_segments: AtomicU64::new(1) });
        let writing = Writing {
            journal,
            config,
            batches,
            group: Vec::new(),
            spares: Arc::clone(&spares),
            preparing: None,
            failed_at: None,
            room: Arc::clone(&room),
            snapshots,
            on_durable,
        };
        let thread = Builder::new().name("journal".to_owned()).stack_size(STACK_BYTES).spawn(|| writing.run())?;
        Ok(JournalWriter { queue, spares, room, thread })
    }

    /// Whether the disk has no room for another segment, so that only the reserve is left: whoever can should
    /// ask for nothing more to be kept.
    pub fn is_low(&self) -> bool {
        self.room.low.load(Ordering::Relaxed)
    }

    /// How many segments of bodies may have been begun since the start, so that none of them is one of the reserve:
    /// those that were, and one for which there is a segment. Before the first is prepared one may all the same.
    pub fn blob_segments_max(&self) -> u64 {
        self.room.blob_segments.load(Ordering::Relaxed)
    }

    /// Gives a batch to be written. Waits while too many wait already.
    pub fn append(&self, batch: FactBatch) -> Result<(), WriterStopped> {
        self.queue.send(batch).map_err(|_| WriterStopped)
    }

    /// Gives a batch to be written, if there is room for it.
    pub fn try_append(&self, batch: FactBatch) -> Result<(), TryAppendError> {
        self.queue.try_send(batch).map_err(|error| match error {
            TrySendError::Full(batch) => TryAppendError::Full(batch),
            TrySendError::Disconnected(_) => TryAppendError::Stopped(WriterStopped),
        })
    }

    /// An empty batch, one that was written already if there is one: its memory is used again.
    pub fn spare(&self) -> FactBatch {
        self.spares.take()
    }

    /// Writes what waits, marks it durable and ends the thread. Returns the durable position.
    pub fn stop(self) -> Result<Position, WriterFailed> {
        drop(self.queue);
        self.thread.join().unwrap_or(Err(WriterFailed::Panicked))
    }
}

/// What the thread says of the disk's room.
#[derive(Debug)]
struct Room {
    low: AtomicBool,
    blob_segments: AtomicU64,
}

/// Batches that were written and can be filled again.
#[derive(Debug)]
struct Spares {
    batches: Mutex<Vec<FactBatch>>,
    max: usize,
}

impl Spares {
    fn take(&self) -> FactBatch {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Keeps a batch, unless there are enough, or it has grown out of the ordinary.
    fn give(&self, mut batch: FactBatch) {
        let ordinary = batch.weight() <= SPARE_BYTES_MAX;
        batch.clear();
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        if ordinary && batches.len() < self.max {
            batches.push(batch);
        }
    }
}

/// Segments that another thread prepares: those that it made, and why it made no more.
type Preparing<F> = JoinHandle<(Vec<PreparedSegment<F>>, Option<DiskError>)>;

/// Snapshots that are made beside the writing.
struct Snapshots<F> {
    snapshotter: Snapshotter<F>,
    /// Facts since the last.
    facts: u64,
    /// Bytes since the last.
    bytes: u64,
    /// Bytes of the last.
    last: u64,
    running: bool,
}

/// What the thread owns.
struct Writing<D: Disk, C> {
    journal: Journal<D>,
    config: WriterConfig,
    batches: Receiver<FactBatch>,
    /// What is written with one sync; kept for its memory.
    group: Vec<FactBatch>,
    spares: Arc<Spares>,
    preparing: Option<Preparing<D::File>>,
    /// When preparing failed, for which it is not tried again at once.
    failed_at: Option<Instant>,
    room: Arc<Room>,
    snapshots: Option<Snapshots<D::File>>,
    on_durable: C,
}

impl<D, C> Writing<D, C>
where
    D: Disk + Clone + Send + 'static,
    D::File: Send,
    C: FnMut(Result<Position, WriterFailed>),
{
    fn run(mut self) -> Result<Position, WriterFailed> {
        let written = self.write_all();
        if let Err(failed) = &written {
            (self.on_durable)(Err(failed.clone()));
        }
        // Both end with us.
        drop(self.snapshots.take());
        if let Some(thread) = self.preparing.take() {
            let _ = thread.join();
        }
        written?;
        Ok(self.journal.stop()?)
    }

    /// Until nobody can give any more batches.
    fn write_all(&mut self) -> Result<(), WriterFailed> {
        let mut marked = true;
        loop {
            self.prepare_ahead();
            self.consider_snapshot()?;
            // An idle writer sleeps until the next batch comes; only what is due wakes it.
            let batch = match (marked, self.awaits_segments()) {
                (true, false) => self.batches.recv().map_err(|_| RecvTimeoutError::Disconnected),
                (true, true) => self.batches.recv_timeout(RESERVE_EVERY),
                (false, _) => self.batches.recv_timeout(self.config.idle),
            };
            match batch {
                Ok(batch) => {
                    self.write_group(batch)?;
                    marked = false;
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.journal.mark()?;
                    marked = true;
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// Writes this batch and all that wait behind it, then syncs once; before that, once, their blobs.
    fn write_group(&mut self, first: FactBatch) -> Result<(), WriterFailed> {
        let mut group = std::mem::take(&mut self.group);
        group.push(first);
        // Bounded, so that a sync comes however fast batches do.
        group.extend(self.batches.try_iter().take(self.config.queue_batches));
        let begins = group.iter().flat_map(FactBatch::blobs).any(|(blob, _)| blob.is_first());
        if begins
            && self.journal.prepared() <= self.config.reserve
            && let Some(thread) = self.preparing.take()
        {
            self.on_prepared(thread);
        }
        self.journal.write_blobs(&group)?;
        for batch in group.drain(..) {
            self.write(batch)?;
        }
        self.group = group;
        let durable = self.journal.sync()?;
        (self.on_durable)(Ok(durable));
        Ok(())
    }

    fn write(&mut self, batch: FactBatch) -> Result<(), WriterFailed> {
        if !self.journal.has_room(&batch)
            && self.journal.prepared() == 0
            && let Some(thread) = self.preparing.take()
        {
            self.on_prepared(thread);
        }
        self.journal.append_facts(&batch)?;
        if let Some(snapshots) = &mut self.snapshots {
            snapshots.facts += u64::from(batch.count());
            snapshots.bytes += batch.weight() as u64;
        }
        self.spares.give(batch);
        Ok(())
    }

    /// Has the segments that are missing prepared on a thread of its own, so that zeros hold nobody up.
    fn prepare_ahead(&mut self) {
        if let Some(thread) = self.preparing.take_if(|thread| thread.is_finished()) {
            self.on_prepared(thread);
        }
        let missing = self.missing();
        if missing == 0 {
            // There is all that is wanted, wherever it came from.
            self.failed_at = None;
        }
        self.say_room();
        let just_failed = self.failed_at.is_some_and(|at| at.elapsed() < RESERVE_EVERY);
        if missing == 0 || self.preparing.is_some() || just_failed {
            return;
        }
        let planned: Vec<(u64, u64)> = (0..missing).map(|_| self.journal.plan_segment()).collect();
        let disk = self.journal.disk().clone();
        let prepare = move || {
            let mut prepared = Vec::new();
            for (serial, bytes) in planned {
                match PreparedSegment::create(&disk, serial, bytes) {
                    Ok(segment) => prepared.push(segment),
                    Err(error) => return (prepared, Some(error)),
                }
            }
            (prepared, None)
        };
        let thread = Builder::new().name("journal-next".to_owned()).stack_size(STACK_BYTES).spawn(prepare);
        self.preparing = thread.ok();
    }

    fn on_prepared(&mut self, thread: Preparing<D::File>) {
        let Ok((prepared, failed)) = thread.join() else { return };
        prepared.into_iter().for_each(|segment| self.journal.provide(segment));
        // Whatever it failed of: what there is must do.
        self.failed_at = failed.is_some().then(Instant::now);
        self.say_room();
    }

    /// The disk is low when there is no more than the reserve, and was no room for more when that was tried.
    fn say_room(&self) {
        let (reserve, is_half_full) = (self.config.reserve, self.journal.is_half_full());
        let prepared = self.journal.prepared();
        self.room.low.store(prepared <= reserve && self.failed_at.is_some(), Ordering::Relaxed);
        let begun = self.journal.blob_segments();
        let ready = prepared > reserve + usize::from(is_half_full);
        if ready || begun > 0 {
            self.room.blob_segments.store(begun + u64::from(ready), Ordering::Relaxed);
        }
    }

    /// How many segments should be prepared and are not.
    fn missing(&self) -> usize {
        if self.config.reserve == 0 {
            return 0;
        }
        let for_facts = self.config.reserve + usize::from(self.journal.is_half_full());
        (for_facts + FOR_BODIES).saturating_sub(self.journal.prepared())
    }

    /// Whether segments are being prepared, or must be tried again.
    fn awaits_segments(&self) -> bool {
        self.preparing.is_some() || self.missing() > 0
    }

    /// Asks for a snapshot when one is due, and takes back the segments that the last one has freed.
    fn consider_snapshot(&mut self) -> Result<(), WriterFailed> {
        let Some(snapshots) = &mut self.snapshots else { return Ok(()) };
        let (facts_max, bytes_max) = (snapshots.snapshotter.facts, snapshots.snapshotter.bytes);
        if let Some(outcome) = snapshots.snapshotter.outcome() {
            snapshots.running = false;
            snapshots.last = outcome.bytes.unwrap_or(snapshots.last);
            outcome.reusable.into_iter().for_each(|segment| self.journal.provide(segment));
            if !outcome.made {
                // Soon again, but not at once.
                snapshots.facts = snapshots.facts.max(facts_max - facts_max / 4);
            }
        }
        if !snapshots.running && (snapshots.facts >= facts_max || snapshots.bytes >= bytes_max.max(snapshots.last)) {
            (snapshots.facts, snapshots.bytes, snapshots.running) = (0, 0, true);
            self.journal.roll()?;
            snapshots.snapshotter.request();
        }
        Ok(())
    }
}

/// The reserve of a busy journal: what results and cancels are written to when the disk is full.
const RESERVE: usize = 2;
/// Segments that are prepared beyond it, so that bodies take none of it.
const FOR_BODIES: usize = 1;
/// How often an idle writer tries to fill its reserve.
const RESERVE_EVERY: Duration = Duration::from_millis(200);
/// Enough for a callback that passes a position on.
const STACK_BYTES: usize = 128 << 10;
/// A batch that grew beyond this is not kept for another use.
const SPARE_BYTES_MAX: usize = 1 << 20;
