//! Everything that may come instead of an authentic frame that is the next of its session, one test for
//! each class: each is refused with an error that names the cause. What authentic frames may hold wrongly
//! is in `bad_content.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use fleetwire_common::{
    envelope::{CONTROL_STREAM, Features, OpenError, Opener, SIGNATURE_BYTES, keys::MacKey, keys::Secret},
    fb,
    limits::*,
};
use support::*;

/// Frames of each shape, small enough to be treated exhaustively.
fn shapes() -> Vec<Vec<u8>> {
    let mut batch = Vec::new();
    sealer(Features::ALL).seal(NOW_MS, &[heartbeat(), status(2), heartbeat()], &mut batch);
    vec![
        sealed(&heartbeat(), Features::ALL),
        sealed(&status(3), Features::ALL),
        sealed(&status(3), Features::NONE),
        sealed(&assignment(2_000), Features::ALL),
        batch,
    ]
}

// §open-1
#[test]
fn truncated_frames_are_refused_at_every_length() {
    for frame in shapes() {
        for length in 0..frame.len() {
            let cut = &frame[..length];
            assert!(matches!(refusal(cut), OpenError::TooShort { .. } | OpenError::Length { .. }), "{length}");
            // Also with a length prefix that fits.
            let mut honest = cut.to_vec();
            if let Some(prefix) = honest.first_chunk_mut::<4>() {
                *prefix = (length as u32 - 4).to_le_bytes();
            }
            let error = refusal(&honest);
            let fine = matches!(error, OpenError::TooShort { .. } | OpenError::KeyId { .. } | OpenError::Signature);
            assert!(fine, "{length}: {error}");
        }
    }
}

#[test]
fn extended_frames_are_refused() {
    for frame in shapes() {
        for extra in [1, 4, 32, 1_000] {
            let mut longer = frame.clone();
            longer.resize(frame.len() + extra, 0);
            assert!(matches!(refusal(&longer), OpenError::Length { .. }));
            let length = (longer.len() as u32 - 4).to_le_bytes();
            longer[..4].copy_from_slice(&length);
            assert!(matches!(refusal(&longer), OpenError::KeyId { .. } | OpenError::Signature));
            // In front, and between body and signature.
            for place in [4, frame.len() - SIGNATURE_BYTES] {
                let mut longer = frame.clone();
                longer.splice(place..place, std::iter::repeat_n(0, extra));
                longer[..4].copy_from_slice(&length);
                assert_eq!(refusal(&longer), OpenError::Signature);
            }
        }
    }
}

// §open-3
#[test]
fn every_flipped_bit_is_noticed() {
    for frame in shapes() {
        let mut flipped = frame.clone();
        for bit in 0..8 * frame.len() {
            flipped[bit / 8] ^= 1 << (bit % 8);
            let expected = match bit / 8 {
                0..4 => matches!(refusal(&flipped), OpenError::Length { .. }),
                byte if (frame.len() - SIGNATURE_BYTES..frame.len() - 32).contains(&byte) => {
                    matches!(refusal(&flipped), OpenError::KeyId { .. })
                }
                _ => refusal(&flipped) == OpenError::Signature,
            };
            assert!(expected, "bit {bit}: {}", refusal(&flipped));
            flipped[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn oversized_frames_are_refused_before_their_bytes_are_looked_at() {
    let frame = vec![0; FRAME_BYTES_MAX + 1];
    assert_eq!(refusal(&frame), OpenError::TooLong { found: frame.len(), max: FRAME_BYTES_MAX });
    assert_eq!(refusal(&frame).code(), fb::ErrorCode::TooLarge);
    // No transport may ask for more than the codec's cap.
    let frame = vec![0; FRAME_BYTES_CODEC_MAX + 1];
    let mut opener = opener().with_frame_bytes_max(usize::MAX);
    let error = open(&mut opener, &frame).unwrap_err();
    assert_eq!(error, OpenError::TooLong { found: frame.len(), max: FRAME_BYTES_CODEC_MAX });
}

#[test]
fn a_frame_is_not_played_twice_in_its_session() {
    let (mut sealer, mut opener) = (sealer(Features::ALL), opener());
    let mut bytes = Vec::new();
    for _ in 0..3 {
        sealer.seal(NOW_MS, &[heartbeat()], &mut bytes);
    }
    let frames = frames(&bytes);
    for frame in &frames {
        open(&mut opener, frame).unwrap();
    }
    for (found, frame) in (0..).zip(&frames) {
        let error = open(&mut opener, frame).unwrap_err();
        assert_eq!(error, OpenError::Sequence { stream: 0, found, expected: 3 });
        assert!(error.is_fatal());
    }
}

// §open-7
#[test]
fn a_lost_or_reordered_frame_is_noticed() {
    let mut bytes = Vec::new();
    let mut sealer = sealer(Features::ALL);
    for _ in 0..3 {
        sealer.seal(NOW_MS, &[heartbeat()], &mut bytes);
    }
    let frames = frames(&bytes);
    let mut opener = opener();
    open(&mut opener, frames[0]).unwrap();
    let error = open(&mut opener, frames[2]).unwrap_err();
    assert_eq!(error, OpenError::Sequence { stream: 0, found: 2, expected: 1 });
}

// §open-2 §key-3
#[test]
fn a_frame_sealed_with_another_key_or_key_id_is_refused() {
    let frame = sealed(&heartbeat(), Features::ALL);
    let mut other = Opener::new(MacKey::new(&Secret::new([0x43; 32])), KEY_ID);
    assert_eq!(open(&mut other, &frame).unwrap_err(), OpenError::Signature);
    let mut other = Opener::new(key(), KEY_ID + 1);
    let error = open(&mut other, &frame).unwrap_err();
    assert_eq!(error, OpenError::KeyId { found: KEY_ID, expected: KEY_ID + 1 });
    assert_eq!(error.code(), fb::ErrorCode::Authorization);
}

// §open-8 §fresh-1
#[test]
fn stale_frames_are_refused_in_both_directions_of_time_and_on_the_control_stream_only() {
    let frame = sealed(&heartbeat(), Features::ALL);
    for arrived_ms in [NOW_MS - STALE_AFTER_MS, NOW_MS, NOW_MS + STALE_AFTER_MS] {
        opener().open(&frame, CONTROL_STREAM, arrived_ms, STALE_AFTER_MS).unwrap();
    }
    for arrived_ms in [0, NOW_MS - STALE_AFTER_MS - 1, NOW_MS + STALE_AFTER_MS + 1, u64::MAX] {
        let mut opener = opener();
        let error = opener.open(&frame, CONTROL_STREAM, arrived_ms, STALE_AFTER_MS).unwrap_err();
        assert!(matches!(error, OpenError::Stale { timestamp_ms: NOW_MS, tolerance_ms: STALE_AFTER_MS, .. }));
        assert_eq!((error.code(), error.is_fatal()), (fb::ErrorCode::Stale, true));
    }
    let mut pieces = Vec::new();
    sealer(Features::ALL).seal_bulk(NOW_MS, 1, &heartbeat(), &mut pieces).unwrap();
    opener().open(&pieces, 1, u64::MAX, STALE_AFTER_MS).unwrap();
}

// §open-6
#[test]
fn a_frame_of_another_version_is_refused() {
    for version in [0, 2, u16::MAX] {
        let frame = forge(|builder, args| {
            args.version = version;
            args.message_type = fb::SchedulerMessage::Heartbeat;
            args.message = Some(fb::Heartbeat::create(builder, &Default::default()).as_union_value());
        });
        assert_eq!(refusal(&frame), OpenError::Version { found: version });
        assert_eq!(refusal(&frame).code(), fb::ErrorCode::UnsupportedVersion);
    }
}

#[test]
fn a_frame_that_came_on_another_stream_than_it_says_is_refused() {
    let frame = sealed(&heartbeat(), Features::ALL);
    let error = opener().open(&frame, 1, NOW_MS, STALE_AFTER_MS).unwrap_err();
    assert_eq!(error, OpenError::Stream { found: 0, expected: 1 });
    let mut pieces = Vec::new();
    sealer(Features::ALL).seal_bulk(NOW_MS, 1, &heartbeat(), &mut pieces).unwrap();
    for stream in [0, 2] {
        let error = opener().open(&pieces, stream, NOW_MS, STALE_AFTER_MS).unwrap_err();
        assert_eq!(error, OpenError::Stream { found: 1, expected: stream });
    }
}

// §open-5
#[test]
fn a_signature_field_that_is_not_the_tail_is_refused() {
    // The tail is right, so the tag is; but the table's field points at bytes inside the payload, or nowhere.
    let elsewhere = forge(|builder, args| {
        let lookalike = [KEY_ID.to_le_bytes().as_slice(), &[0; 32]].concat();
        args.signature = Some(builder.create_vector(&lookalike));
        args.message_type = fb::SchedulerMessage::Heartbeat;
        args.message = Some(fb::Heartbeat::create(builder, &Default::default()).as_union_value());
    });
    let absent = forge(|builder, args| {
        args.signature = None;
        args.message_type = fb::SchedulerMessage::Heartbeat;
        args.message = Some(fb::Heartbeat::create(builder, &Default::default()).as_union_value());
    });
    for frame in [elsewhere, absent] {
        assert_eq!(refusal(&frame), OpenError::SignaturePlace);
    }
}

#[test]
fn a_payload_that_aliases_the_signature_reads_the_tag_and_nothing_else() {
    // The verifier lets two fields share bytes. A chunk whose data are the signature is harmless, because nothing
    // is ever signed in place: what it reads is the tag that was checked.
    let frame = forge(|builder, args| {
        let data = args.signature;
        (args.stream, args.message_type) = (1, fb::SchedulerMessage::Chunk);
        let chunk = fb::ChunkArgs { total: 1_000, data, ..Default::default() };
        args.message = Some(fb::Chunk::create(builder, &chunk).as_union_value());
    });
    let mut opener = opener();
    let opened = opener.open(&frame, 1, NOW_MS, STALE_AFTER_MS).unwrap();
    assert!(opened.message().is_none(), "a piece of a body that is not complete");
}

#[test]
fn garbage_under_a_right_signature_is_refused_as_malformed() {
    for length in [44, 48, 100, 1_000] {
        let mut frame = noise(length);
        frame[length - SIGNATURE_BYTES..length - 32].copy_from_slice(&KEY_ID.to_le_bytes());
        sign_again(&mut frame);
        assert!(matches!(refusal(&frame), OpenError::Malformed { what: "envelope", .. }), "{}", refusal(&frame));
    }
}
