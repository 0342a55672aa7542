//! The thread that writes the journal.
//!
//! Invariants: batches are written in the order in which they were given; a position is announced only
//! once a sync has returned it; after the first failure nothing is written and nothing announced any
//! more, except that failure, once. While one sync runs batches queue up, and the next covers them all.

use fleetwire_common::{facts::FactBatch, ids::Position};
use fleetwire_journal::{AppendError, Disk, DiskError, Journal, PreparedSegment, SyncError};
use std::{
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    sync::{Arc, Mutex, PoisonError},
    thread::{Builder, JoinHandle},
    time::Duration,
};
use thiserror::Error;

/// How a journal is written.
#[derive(Clone, Copy, Debug)]
pub struct WriterConfig {
    /// Batches that may wait. More let a burst pass without waiting; what they hold is memory.
    pub queue_batches: usize,
    /// After this long without a batch, a mark is written: one small write, without a sync.
    pub idle: Duration,
    /// Whether the next segment is prepared when this one is half full. Costs the disk space of one
    /// segment; without it, the append that needs the next segment waits for its zeros.
    pub prepare_ahead: bool,
}

impl Default for WriterConfig {
    fn default() -> WriterConfig {
        WriterConfig { queue_batches: 64, idle: Duration::from_millis(50), prepare_ahead: true }
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
        let (queue, batches) = sync_channel(config.queue_batches);
        let spares = Arc::new(Spares { batches: Mutex::default(), max: config.queue_batches });
        let writing =
            Writing { journal, config, batches, spares: Arc::clone(&spares), preparing: Preparing::Not, on_durable };
        let thread = Builder::new().name("journal".to_owned()).stack_size(STACK_BYTES).spawn(|| writing.run())?;
        Ok(JournalWriter { queue, spares, thread })
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
        let ordinary = batch.bytes().len() <= SPARE_BYTES_MAX;
        batch.clear();
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        if ordinary && batches.len() < self.max {
            batches.push(batch);
        }
    }
}

/// The next segment, while another thread prepares it.
enum Preparing<F> {
    Not,
    Running(JoinHandle<Result<PreparedSegment<F>, DiskError>>),
    /// It did not work. It is tried again, at the latest, when the segment is needed.
    Failed,
}

/// What the thread owns.
struct Writing<D: Disk, C> {
    journal: Journal<D>,
    config: WriterConfig,
    batches: Receiver<FactBatch>,
    spares: Arc<Spares>,
    preparing: Preparing<D::File>,
    on_durable: C,
}

impl<D, C> Writing<D, C>
where
    D: Disk + Clone + Send + 'static,
    D::File: Send,
    C: FnMut(Result<Position, WriterFailed>),
{
    fn run(mut self) -> Result<Position, WriterFailed> {
        match self.write_all() {
            Ok(()) => {
                if let Preparing::Running(thread) = self.preparing {
                    let _ = thread.join();
                }
                Ok(self.journal.stop()?)
            }
            Err(failed) => {
                (self.on_durable)(Err(failed.clone()));
                Err(failed)
            }
        }
    }

    /// Until nobody can give any more batches.
    fn write_all(&mut self) -> Result<(), WriterFailed> {
        let mut marked = true;
        loop {
            // An idle writer sleeps until the next batch comes; only a mark that is due wakes it.
            let batch = match marked {
                true => self.batches.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => self.batches.recv_timeout(self.config.idle),
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

    /// Writes this batch and all that wait behind it, then syncs once.
    fn write_group(&mut self, first: FactBatch) -> Result<(), WriterFailed> {
        self.write(first)?;
        // Bounded, so that a sync comes however fast batches do.
        for _ in 0..self.config.queue_batches {
            match self.batches.try_recv() {
                Ok(batch) => self.write(batch)?,
                Err(_) => break,
            }
        }
        let durable = self.journal.sync()?;
        (self.on_durable)(Ok(durable));
        self.prepare_ahead();
        Ok(())
    }

    fn write(&mut self, batch: FactBatch) -> Result<(), WriterFailed> {
        if !self.journal.has_room(&batch)
            && let Preparing::Running(thread) = std::mem::replace(&mut self.preparing, Preparing::Not)
            && let Ok(Ok(prepared)) = thread.join()
        {
            self.journal.provide(prepared);
        }
        self.journal.append(&batch)?;
        self.spares.give(batch);
        Ok(())
    }

    /// Has the next segment prepared on a thread of its own, so that its zeros hold nobody up.
    fn prepare_ahead(&mut self) {
        let wanted = self.config.prepare_ahead && self.journal.prepared() == 0 && self.journal.is_half_full();
        self.preparing = match std::mem::replace(&mut self.preparing, Preparing::Not) {
            Preparing::Not if wanted => {
                let (serial, bytes) = self.journal.plan_segment();
                let disk = self.journal.disk().clone();
                let prepare = move || PreparedSegment::create(&disk, serial, bytes);
                let thread = Builder::new().name("journal-next".to_owned()).stack_size(STACK_BYTES).spawn(prepare);
                thread.map_or(Preparing::Failed, Preparing::Running)
            }
            Preparing::Running(thread) if thread.is_finished() => match thread.join() {
                Ok(Ok(prepared)) => {
                    self.journal.provide(prepared);
                    Preparing::Not
                }
                Ok(Err(_)) | Err(_) => Preparing::Failed,
            },
            Preparing::Failed if !wanted => Preparing::Not,
            unchanged => unchanged,
        };
    }
}

/// Enough for a callback that passes a position on.
const STACK_BYTES: usize = 128 << 10;
/// A batch that grew beyond this is not kept for another use.
const SPARE_BYTES_MAX: usize = 1 << 20;
