//! Frames out of a stream's chunks, however the transport cut them. Pure.
//!
//! A frame that lies within one chunk is a slice of it; one that spans chunks is assembled once. The
//! length prefix is checked against the cap before anything is allocated.

use crate::limits::FRAME_BYTES_MIN;
use bytes::{Bytes, BytesMut};
use fleetwire_common::{fb::ErrorCode, limits::STALE_AFTER_MS};

/// A whole frame, length prefix included, not yet opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The frame.
    pub bytes: Bytes,
    /// The stream it came on: 0 is the control stream, a bulk stream's number is the place among its
    /// sender's unidirectional streams, from 1.
    pub stream: u32,
    /// Cluster time (ms) at which its first byte was read.
    pub arrived_ms: u64,
    /// How long (ms) its first byte may have waited because this receiver did not read.
    pub unread_ms: u64,
}

impl Frame {
    /// How far (ms) its timestamp may lie from its arrival: the protocol's tolerance, and time in which
    /// this receiver itself did not read.
    pub fn tolerance_ms(&self) -> u64 {
        STALE_AFTER_MS.saturating_add(self.unread_ms)
    }
}

/// When a chunk came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// Cluster time (ms) at which it was read.
    pub at_ms: u64,
    /// How long (ms) it may have waited to be read.
    pub unread_ms: u64,
}

/// Why a stream's bytes are no frames. The link ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than may be.
    #[error("a frame of {found} bytes: at most {max} are taken")]
    TooLong {
        /// What its length prefix says, with the prefix.
        found: u64,
        /// The cap.
        max: usize,
    },
    /// Shorter than any frame.
    #[error("a frame of {found} bytes: the shortest has {FRAME_BYTES_MIN}")]
    TooShort {
        /// What its length prefix says, with the prefix.
        found: u64,
    },
    /// The stream ended within a frame.
    #[error("the stream ended within a frame: {found} of its bytes came")]
    Truncated {
        /// Bytes of it that came.
        found: usize,
    },
    /// The sender gave a stream up.
    #[error("the peer reset stream {stream}")]
    StreamReset {
        /// Which one.
        stream: u32,
    },
}

impl FrameError {
    /// The code that the peer is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            FrameError::TooLong { .. } => ErrorCode::TooLarge,
            FrameError::TooShort { .. } | FrameError::Truncated { .. } | FrameError::StreamReset { .. } => {
                ErrorCode::MessageFormat
            }
        }
    }
}

/// Cuts one stream into frames.
#[derive(Debug)]
pub struct FrameReader {
    stream: u32,
    max: usize,
    /// The rest of the latest chunk.
    chunk: Bytes,
    chunk_arrival: Arrival,
    /// The beginning of a frame that spans chunks; empty when there is none.
    partial: BytesMut,
    partial_arrival: Arrival,
}

impl FrameReader {
    /// A reader for a stream whose frames have at most `max` bytes, length prefix included.
    pub fn new(stream: u32, max: usize) -> FrameReader {
        FrameReader {
            stream,
            max,
            chunk: Bytes::new(),
            chunk_arrival: Arrival::default(),
            partial: BytesMut::new(),
            partial_arrival: Arrival::default(),
        }
    }

    /// Changes the cap, for frames whose prefix was not looked at yet.
    pub fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    /// Takes the next chunk. All frames of the one before must have been taken ([`FrameReader::next_frame`]
    /// returned `None`).
    pub fn push(&mut self, chunk: Bytes, arrival: Arrival) {
        debug_assert!(self.chunk.is_empty(), "frames of the chunk before were not taken");
        self.chunk = chunk;
        self.chunk_arrival = arrival;
    }

    /// The next whole frame, or `None` when another chunk is needed.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.partial.is_empty() {
            if let Some(length) = prefix(&self.chunk) {
                let length = self.check(length)?;
                if self.chunk.len() >= length {
                    let bytes = self.chunk.split_to(length);
                    return Ok(Some(self.frame(bytes, self.chunk_arrival)));
                }
            }
            if self.chunk.is_empty() {
                return Ok(None);
            }
            self.partial_arrival = self.chunk_arrival;
        }
        self.assemble()
    }

    /// Bytes of a frame that is not whole yet.
    pub fn pending(&self) -> usize {
        self.partial.len() + self.chunk.len()
    }

    /// Moves what belongs to the spanning frame from the chunk; yields it when it is whole.
    fn assemble(&mut self) -> Result<Option<Frame>, FrameError> {
        // First the four bytes that say how long it is, which may be cut as well.
        self.take(4);
        let Some(length) = prefix(&self.partial) else { return Ok(None) };
        let length = self.check(length)?;
        // Within the cap. Reuses the buffer of the frame before once nobody holds that frame.
        self.partial.reserve(length.saturating_sub(self.partial.len()));
        self.take(length);
        if self.partial.len() < length {
            return Ok(None);
        }
        let bytes = self.partial.split().freeze();
        Ok(Some(self.frame(bytes, self.partial_arrival)))
    }

    /// Moves bytes from the chunk until the partial frame has `length` of them or the chunk is empty.
    fn take(&mut self, length: usize) {
        let missing = length.saturating_sub(self.partial.len()).min(self.chunk.len());
        self.partial.extend_from_slice(&self.chunk.split_to(missing));
    }

    // §envelope-5
    fn check(&self, length: u64) -> Result<usize, FrameError> {
        if length < FRAME_BYTES_MIN as u64 {
            return Err(FrameError::TooShort { found: length });
        }
        usize::try_from(length)
            .ok()
            .filter(|length| *length <= self.max)
            .ok_or(FrameError::TooLong { found: length, max: self.max })
    }

    fn frame(&self, bytes: Bytes, arrival: Arrival) -> Frame {
        Frame { bytes, stream: self.stream, arrived_ms: arrival.at_ms, unread_ms: arrival.unread_ms }
    }
}

/// The length of the frame that begins here, its prefix included.
fn prefix(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk::<4>().map(|prefix| u64::from(u32::from_le_bytes(*prefix)) + 4)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(body: &[u8]) -> Vec<u8> {
        let mut frame = (body.len() as u32).to_le_bytes().to_vec();
        frame.extend_from_slice(body);
        frame
    }

    fn drain(reader: &mut FrameReader) -> Result<Vec<Frame>, FrameError> {
        let mut frames = Vec::new();
        while let Some(frame) = reader.next_frame()? {
            frames.push(frame);
        }
        Ok(frames)
    }

    #[test]
    fn a_frame_within_a_chunk_is_a_slice_of_it() {
        let chunk = Bytes::from([frame(&[1; 60]), frame(&[2; 80])].concat());
        let range = chunk.as_ptr() as usize..chunk.as_ptr() as usize + chunk.len();
        let mut reader = FrameReader::new(0, 1 << 10);
        reader.push(chunk, Arrival { at_ms: 5, unread_ms: 1 });
        let frames = drain(&mut reader).unwrap();
        assert_eq!(frames.len(), 2);
        assert!(frames.iter().all(|frame| range.contains(&(frame.bytes.as_ptr() as usize))));
        assert_eq!((frames[0].arrived_ms, frames[0].tolerance_ms()), (5, STALE_AFTER_MS + 1));
    }

    #[test]
    fn a_spanning_frame_arrived_when_its_first_byte_did_and_its_buffer_is_used_again() {
        let mut reader = FrameReader::new(3, 1 << 10);
        let mut place = None;
        for round in 0..3u64 {
            let whole = Bytes::from(frame(&[9; 100]));
            reader.push(whole.slice(..2), Arrival { at_ms: 10 * round, unread_ms: 0 });
            assert!(drain(&mut reader).unwrap().is_empty());
            reader.push(whole.slice(2..), Arrival { at_ms: 10 * round + 7, unread_ms: 0 });
            let frames = drain(&mut reader).unwrap();
            assert_eq!((frames[0].arrived_ms, frames[0].stream, &frames[0].bytes), (10 * round, 3, &whole));
            let at = frames[0].bytes.as_ptr();
            assert!(place.is_none_or(|before| before == at), "the buffer was not used again");
            place = (round > 0).then_some(at);
        }
    }

    #[test]
    fn lengths_are_refused_before_anything_is_allocated() {
        for (length, cut) in [(u32::MAX, 1), (1021, 0), (1021, 2), (0, 0), (39, 3)] {
            let bytes = Bytes::from([length.to_le_bytes().to_vec(), vec![0; 8]].concat());
            let mut reader = FrameReader::new(0, 1 << 10);
            reader.push(bytes.slice(..cut), Arrival::default());
            assert!(drain(&mut reader).unwrap().is_empty());
            reader.push(bytes.slice(cut..), Arrival::default());
            let error = drain(&mut reader).unwrap_err();
            let found = u64::from(length) + 4;
            let expected = if length < 1_000 {
                FrameError::TooShort { found }
            } else {
                FrameError::TooLong { found, max: 1 << 10 }
            };
            assert_eq!(error, expected);
            assert!(reader.partial.capacity() <= 64);
        }
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_they_are_cut(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 40..300), 0..20),
            cuts in proptest::collection::vec(0usize..400, 0..60),
        ) {
            let sent: Vec<Vec<u8>> = bodies.iter().map(|body| frame(body)).collect();
            let mut rest = Bytes::from(sent.concat());
            let mut reader = FrameReader::new(0, 400);
            let mut came = Vec::new();
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let chunk = rest.split_to(cut.min(rest.len()));
                reader.push(chunk, Arrival::default());
                came.extend(drain(&mut reader).unwrap().into_iter().map(|frame| frame.bytes.to_vec()));
            }
            prop_assert_eq!(came, sent);
            prop_assert_eq!(reader.pending(), 0);
        }

        #[test]
        fn garbage_is_refused_or_yields_frames_within_the_cap(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..30),
        ) {
            let mut reader = FrameReader::new(0, 256);
            for chunk in chunks {
                reader.push(Bytes::from(chunk), Arrival::default());
                match drain(&mut reader) {
                    Ok(frames) => prop_assert!(frames.iter().all(|frame| frame.bytes.len() <= 256)),
                    Err(_) => break,
                }
                prop_assert!(reader.partial.capacity() <= 4096);
            }
        }
    }
}
