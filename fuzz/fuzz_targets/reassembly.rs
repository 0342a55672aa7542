//! A stream cut into chunks anywhere gives the frames, or the refusal, that it gives in one piece; and a body on a bulk
//! stream that is cut anywhere is the body that was sent.
#![no_main]

// These alone: the rest of the link would bring a whole QUIC stack into this build.
#[allow(dead_code)]
#[path = "../../common/link/src/frames.rs"]
mod frames;
#[allow(dead_code)]
#[path = "../../common/link/src/limits.rs"]
mod limits;

use bytes::Bytes;
use fleetwire_common::{
    envelope::{
        Features, Opener, Sealer,
        keys::{MacKey, Secret},
    },
    fb,
    message::{Message, MessageRef},
};
use frames::{Arrival, FrameReader};
use libfuzzer_sys::fuzz_target;

const MAX: usize = 4096;

/// The frames that the chunks give, and the refusal at their end, if there is one.
fn read<'a>(chunks: impl Iterator<Item = &'a [u8]>, max: usize) -> (Vec<Vec<u8>>, Option<String>) {
    let (mut reader, mut frames) = (FrameReader::new(0, max), Vec::new());
    for chunk in chunks {
        reader.push(Bytes::copy_from_slice(chunk), Arrival::default());
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => frames.push(frame.bytes.to_vec()),
                Ok(None) => break,
                Err(error) => return (frames, Some(format!("{error:?}"))),
            }
        }
        assert!(reader.pending() <= max, "no more than a frame is held");
    }
    (frames, None)
}

/// Cuts the bytes at these lengths, again and again.
fn cut<'a>(mut bytes: &'a [u8], lengths: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut lengths = lengths.iter().cycle();
    std::iter::from_fn(move || {
        let length = lengths.next().map_or(bytes.len(), |length| usize::from(*length) + 1).min(bytes.len());
        let (chunk, rest) = bytes.split_at(length);
        bytes = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
}

fuzz_target!(|input: (&[u8], &[u8])| {
    let (lengths, bytes) = input;
    assert_eq!(read(cut(bytes, lengths), MAX), read(std::iter::once(bytes), MAX));

    let key = MacKey::new(&Secret::new([7; 32]));
    let log = fb::LogChunkT { data: Some(bytes.to_vec()), ..Default::default() };
    let message = Message::Rare(fb::SchedulerMessageT::LogChunk(Box::new(log)));
    let mut stream = Vec::new();
    let sealer = Sealer::new(key.clone(), 1, Features::ALL);
    let mut sealer = sealer;
    sealer.seal_bulk(0, 1, &message, &mut stream).expect("it is small");
    let (frames, refused) = read(cut(&stream, lengths), 1 << 20);
    assert_eq!(refused, None);
    let mut opener = Opener::new(key, 1);
    for (at, frame) in frames.iter().enumerate() {
        let opened = opener.open(frame, 1, 0, u64::MAX).expect("it is honest");
        let found = opened.message();
        assert_eq!(found.is_some(), at + 1 == frames.len());
        if let Some(MessageRef::LogChunk(log)) = found {
            assert_eq!(log.data().map(|data| data.bytes()).unwrap_or_default(), bytes);
        }
    }
    assert!(!frames.is_empty());
});
