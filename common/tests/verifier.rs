//! Our verification pass beside flatc's generated one: what ours accepts, the generated one accepts, whatever the
//! bytes; and what is honest, ours accepts, so that the slower one need not be asked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use flatbuffers::VerifierOptions;
use fleetwire_common::{
    envelope::{Features, verifier_options},
    fb::{self, verify},
    limits::METRICS_MAX,
    message::{Ack, Message},
};
use support::*;

/// Whether the generated verifier accepts, by itself, as `open` did without ours.
fn generated(options: &VerifierOptions, bytes: &[u8], envelope: bool) -> bool {
    if envelope {
        flatbuffers::size_prefixed_root_with_opts::<fb::MessageEnvelope<'_>>(options, bytes).is_ok()
    } else {
        flatbuffers::root_with_opts::<fb::Body<'_>>(options, bytes).is_ok()
    }
}

/// Whether ours accepts. What it accepts is read to its last field.
fn ours(options: &VerifierOptions, bytes: &[u8], envelope: bool) -> bool {
    if envelope {
        verify::envelope(options, bytes).is_some_and(|envelope| !format!("{envelope:?}").is_empty())
    } else {
        verify::body(options, bytes).is_some_and(|body| !format!("{body:?}").is_empty())
    }
}

/// Holds the two against each other; says whether ours accepted.
fn compare(bytes: &[u8], envelope: bool) -> bool {
    let options = verifier_options(bytes.len());
    let theirs = generated(&options, bytes, envelope);
    // Only what the generated one accepts as well may be read.
    if verify_only(&options, bytes, envelope) {
        assert!(theirs, "accepted what the generated verifier refuses: {bytes:02x?}");
        assert!(ours(&options, bytes, envelope));
        return true;
    }
    false
}

fn verify_only(options: &VerifierOptions, bytes: &[u8], envelope: bool) -> bool {
    if envelope { verify::envelope(options, bytes).is_some() } else { verify::body(options, bytes).is_some() }
}

/// Honest frames of every type and of every way of sealing, and honest bodies.
fn honest() -> Vec<(Vec<u8>, bool)> {
    let mut all = Vec::new();
    let rare: Vec<Message> = samples::all().into_iter().map(|(_, message)| Message::Rare(message)).collect();
    let frequent = [
        heartbeat(),
        status(0),
        status(16),
        status(METRICS_MAX),
        assignment(0),
        assignment(300),
        Message::Acceptance(attempt()),
        Message::Recall(attempt()),
        Message::Cancellation(attempt(), fb::EndReason::Cancelled),
        Message::Ack(Ack::Final(attempt())),
        Message::Ack(Ack::Request(9)),
        log_chunk(vec![7; 200]),
    ];
    for features in [Features::NONE, Features::ALL] {
        for message in rare.iter().chain(&frequent) {
            all.push((sealed(message, features), true));
        }
        let mut batch = Vec::new();
        sealer(features).seal(NOW_MS, &frequent, &mut batch);
        all.extend(frames(&batch).into_iter().map(|frame| (frame.to_vec(), true)));
    }
    let mut pieces = Vec::new();
    sealer(Features::NONE).seal_bulk(NOW_MS, 1, &log_chunk(noise(900)), &mut pieces).unwrap();
    all.extend(frames(&pieces).into_iter().map(|frame| (frame.to_vec(), true)));
    for (_, message) in samples::all() {
        all.push((
            body(|builder, args| {
                args.message_type = message.scheduler_message_type();
                args.message = message.pack(builder);
            }),
            false,
        ));
    }
    all.push((
        body(|builder, args| {
            let message = Some(fb::Heartbeat::create(builder, &Default::default()).as_union_value());
            let kind = fb::SchedulerMessage::Heartbeat;
            let item = fb::Item::create(builder, &fb::ItemArgs { message_type: kind, message });
            args.batch = Some(builder.create_vector(&[item, item]));
        }),
        false,
    ));
    all
}

#[test]
fn what_is_honest_is_accepted_without_the_generated_verifier() {
    for (bytes, envelope) in honest() {
        assert!(compare(&bytes, envelope), "{bytes:02x?}");
    }
}

#[test]
fn one_changed_byte_or_a_truncation_is_never_accepted_where_the_generated_verifier_refuses() {
    let (mut accepted, mut refused) = (0, 0);
    for (bytes, envelope) in honest() {
        let mut bytes = bytes;
        for length in (0..bytes.len()).filter(|length| *length < 400 || length % 7 == 0) {
            compare(&bytes[..length], envelope);
        }
        // Of long ones, the bytes at the beginning, where the offsets are, and some of the others.
        for at in (0..bytes.len()).filter(|at| *at < 300 || at % 7 == 0) {
            let before = bytes[at];
            let few = [0, 1, 2, 3, 4, 8, 0x7f, 0x80, 0xfe, 0xff];
            for value in few.into_iter().chain([before ^ 1, before ^ 2, before ^ 4, before ^ 0x40, before ^ 0x80]) {
                bytes[at] = value;
                if compare(&bytes, envelope) {
                    accepted += 1;
                } else {
                    refused += 1;
                }
            }
            bytes[at] = before;
        }
    }
    assert!(accepted > 10_000 && refused > 10_000, "{accepted} accepted, {refused} refused");
}

#[test]
fn several_changed_bytes_are_never_accepted_where_the_generated_verifier_refuses() {
    let honest = honest();
    let mut random = Random(3);
    let mut accepted = 0;
    for _ in 0..60_000 {
        let (bytes, envelope) = &honest[random.next() as usize % honest.len()];
        let mut bytes = bytes.clone();
        for _ in 0..1 + random.next() % 6 {
            let at = random.next() as usize % bytes.len();
            bytes[at] = match random.next() % 4 {
                0 => random.next() as u8,
                1 => bytes[at].wrapping_add(4),
                2 => bytes[at].wrapping_sub(4),
                _ => bytes[random.next() as usize % bytes.len()],
            };
        }
        accepted += u32::from(compare(&bytes, *envelope));
    }
    assert!(accepted > 5_000, "{accepted}");
}

#[test]
fn the_bounds_are_never_wider_than_the_generated_verifiers() {
    for (bytes, envelope) in honest() {
        for tables in 0..40 {
            let options = VerifierOptions { max_tables: tables, ..verifier_options(bytes.len()) };
            let accepted = verify_only(&options, &bytes, envelope);
            // Tables are counted alike.
            assert_eq!(accepted, generated(&options, &bytes, envelope), "{tables} tables: {bytes:02x?}");
        }
        for apparent in (0..2 * bytes.len()).step_by(3) {
            let options = VerifierOptions { max_apparent_size: apparent, ..verifier_options(bytes.len()) };
            let accepted = verify_only(&options, &bytes, envelope);
            assert!(!accepted || generated(&options, &bytes, envelope), "{apparent} bytes: {bytes:02x?}");
        }
        for depth in 0..=verify::DEPTH {
            let options = VerifierOptions { max_depth: depth, ..verifier_options(bytes.len()) };
            let accepted = verify_only(&options, &bytes, envelope);
            assert!(!accepted || generated(&options, &bytes, envelope), "depth {depth}: {bytes:02x?}");
        }
    }
}
