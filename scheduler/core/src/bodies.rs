//! Bodies that the state does not hold: files of jobs and results of more than
//! [`BODY_INLINE_BYTES_MAX`](crate::limits::BODY_INLINE_BYTES_MAX) lie in segments of blobs beside the journal.
//!
//! Invariants: where a blob lies is decided here and is part of the fact that names it, so that a replay agrees; blobs
//! lie end to end; of each segment it is known how many bytes of it are still named, and one of which none are
//! is never named again, unless it is the newest.

use fleetwire_common::{
    blob::BlobRef,
    fb,
    job::{JobSpec, TaskSpec},
    message::{Assignment, Message},
};
use std::{collections::BTreeMap, sync::Arc};

/// The end of the stream of blobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Where the newest segment begins.
    pub segment: u64,
    /// Where the stream ends.
    pub end: u64,
}

impl Stream {
    /// Whether a body of so many bytes begins a segment.
    pub fn begins(&self, bytes: usize, segment_bytes: u64) -> bool {
        let used = self.end - self.segment;
        used == 0 || used + bytes as u64 > segment_bytes
    }

    /// Gives the next blob its place: behind the last, or in a new segment if that one is full.
    pub fn place(&mut self, bytes: &[u8], segment_bytes: u64) -> BlobRef {
        if self.begins(bytes.len(), segment_bytes) {
            self.segment = self.end;
        }
        let blob = BlobRef::of(self.segment, self.end, bytes);
        self.end = blob.end();
        blob
    }
}

/// The stream of blobs, as far as facts say, and what of it is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blobs {
    /// Its end.
    pub stream: Stream,
    /// Bytes that are named, of each segment of which any are.
    live: BTreeMap<u64, u64>,
}

impl Blobs {
    /// A fact names a new blob; `None` if that lies where none can.
    pub(crate) fn append(&mut self, blob: &BlobRef) -> Option<()> {
        let Stream { segment, end } = self.stream;
        let follows = blob.position == end && (blob.segment == segment || blob.segment == end);
        let end = end.checked_add(u64::from(blob.length)).filter(|_| follows)?;
        self.stream = Stream { segment: blob.segment, end };
        self.keep(blob)
    }

    /// A snapshot names a blob; `None` if it lies beyond what there is.
    pub(crate) fn keep(&mut self, blob: &BlobRef) -> Option<()> {
        let Stream { segment, end } = self.stream;
        let inside = blob.segment <= blob.position && blob.segment <= segment && blob.end() <= end;
        let live = self.live.entry(blob.segment).or_default();
        *live = live.checked_add(u64::from(blob.length)).filter(|_| inside)?;
        Some(())
    }

    /// A blob is named no more.
    pub(crate) fn release(&mut self, blob: &BlobRef) {
        if let Some(live) = self.live.get_mut(&blob.segment) {
            *live = live.saturating_sub(u64::from(blob.length));
            if *live == 0 {
                self.live.remove(&blob.segment);
            }
        }
    }

    /// Whether the segment that begins there holds anything that is named, or that may be named from here on.
    pub fn needs(&self, segment: u64) -> bool {
        segment >= self.stream.segment || self.live.contains_key(&segment)
    }

    /// How many segments must be kept.
    pub fn segments(&self) -> usize {
        self.live.len() + usize::from(!self.live.contains_key(&self.stream.segment))
    }
}

/// A file of a job whose bytes are a blob; in the spec it is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileKept {
    /// The entry of the task.
    pub entry: u16,
    /// Its place among the entry's files.
    pub file: u16,
    /// Its bytes.
    pub blob: BlobRef,
}

impl FileKept {
    pub(crate) fn to_wire(self) -> fb::FileKept {
        fb::FileKept::new(&self.blob.to_wire(), self.entry, self.file)
    }

    fn from_wire(wire: &fb::FileKept) -> FileKept {
        FileKept { entry: wire.entry(), file: wire.file(), blob: BlobRef::from_wire(wire.blob()) }
    }
}

/// Reads the files of a fact. `None` if they are not in order, or one is none of the job's empty files.
pub(crate) fn read_files(
    wire: Option<flatbuffers::Vector<'_, fb::FileKept>>,
    spec: &JobSpec,
) -> Option<Box<[FileKept]>> {
    let files: Box<[FileKept]> = wire.into_iter().flatten().map(FileKept::from_wire).collect();
    let place = |kept: &FileKept| (kept.entry, kept.file);
    let is_empty = |kept: &FileKept| {
        let entry = spec.tasks.get(usize::from(kept.entry));
        entry.and_then(|entry| entry.files.get(usize::from(kept.file))).is_some_and(|file| file.data.is_empty())
    };
    (files.is_sorted_by(|a, b| place(a) < place(b)) && files.iter().all(is_empty)).then_some(files)
}

/// What a message lacks until it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lacks {
    /// An assignment: these files of its task.
    Files(Box<[FileKept]>),
    /// An assignment: these files of its task, and results that it is handed, which are its alone.
    Inputs(Box<[FileKept]>),
    /// A page: the result of its only task.
    Result(BlobRef),
    /// A page: what the shell has counted, which it puts there itself.
    Metrics,
}

impl Lacks {
    /// Whether there is nothing.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Lacks::Files(files) | Lacks::Inputs(files) if files.is_empty())
    }

    /// Where the first of the files lies that all tasks of an entry have: no other entry has it.
    pub fn shared(&self) -> Option<u64> {
        match self {
            Lacks::Files(files) => files.first().map(|kept| kept.blob.position),
            Lacks::Inputs(_) | Lacks::Result(_) | Lacks::Metrics => None,
        }
    }
}

/// Puts into a message what it lacks.
///
/// # Errors
/// The first that `read` answers.
pub fn complete<E>(
    message: &mut Message,
    lacks: &Lacks,
    mut read: impl FnMut(&BlobRef) -> Result<Vec<u8>, E>,
) -> Result<(), E> {
    match (lacks, message) {
        (Lacks::Files(files) | Lacks::Inputs(files), Message::Assignment(Assignment { spec, .. })) => {
            let spec: &mut TaskSpec = Arc::make_mut(spec);
            for kept in files {
                if let Some(file) = spec.files.get_mut(usize::from(kept.file)) {
                    file.data = read(&kept.blob)?;
                }
            }
        }
        (Lacks::Result(blob), Message::Rare(fb::SchedulerMessageT::Page(page))) => {
            let task = page.tasks.as_mut().and_then(|tasks| tasks.first_mut());
            if let Some(end) = task.and_then(|task| task.end.as_mut()) {
                end.result = Some(read(blob)?);
            }
        }
        (Lacks::Files(_) | Lacks::Inputs(_) | Lacks::Result(_) | Lacks::Metrics, _) => {}
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn blobs_lie_end_to_end_and_a_segment_goes_with_the_last_that_is_named() {
        let (mut blobs, mut stream) = (Blobs::default(), Stream::default());
        let mut placed = Vec::new();
        for bytes in [400, 500, 300, 5_000, 10] {
            let blob = stream.place(&vec![1; bytes], 1_000);
            blobs.append(&blob).unwrap();
            assert_eq!(blobs.stream, stream);
            placed.push(blob);
        }
        assert_eq!(placed.iter().map(|blob| blob.segment).collect::<Vec<_>>(), [0, 0, 900, 1_200, 6_200]);
        assert_eq!((blobs.segments(), blobs.stream.end), (4, 6_210));
        blobs.release(&placed[0]);
        assert!(blobs.needs(0));
        blobs.release(&placed[1]);
        assert!(!blobs.needs(0) && blobs.needs(900) && blobs.segments() == 3);
        blobs.release(&placed[4]);
        assert!(blobs.needs(6_200), "the newest goes on");
        let elsewhere = BlobRef { position: 7_000, segment: 6_200, length: 1, checksum: 0 };
        assert_eq!((blobs.append(&elsewhere), blobs.keep(&elsewhere)), (None, None));
    }
}
