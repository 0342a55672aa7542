//! Our verification pass beside flatc's generated one: what ours accepts, the generated one accepts, whatever the
//! bytes; and what is honest, ours accepts, so that the slower one need not be asked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use flatbuffers::VerifierOptions;
use fleetwire_common::{
    envelope::Features,
    fb::{self, verify},
    limits::METRICS_MAX,
    message::{Ack, Message},
    verified::verifier_options,
};
use support::*;

/// What the bytes are taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root {
    Envelope,
    Body,
    Job,
    Fact,
}

/// Whether the generated verifier accepts, by itself, as without ours.
fn generated(options: &VerifierOptions, bytes: &[u8], root: Root) -> bool {
    match root {
        Root::Envelope => flatbuffers::size_prefixed_root_with_opts::<fb::MessageEnvelope<'_>>(options, bytes).is_ok(),
        Root::Body => flatbuffers::root_with_opts::<fb::Body<'_>>(options, bytes).is_ok(),
        Root::Job => flatbuffers::root_with_opts::<fb::JobSpec<'_>>(options, bytes).is_ok(),
        Root::Fact => flatbuffers::root_with_opts::<fb::FactRecord<'_>>(options, bytes).is_ok(),
    }
}

/// Reads what ours accepts to its last field; says whether it accepts.
fn ours(options: &VerifierOptions, bytes: &[u8], root: Root) -> bool {
    match root {
        Root::Envelope => verify::envelope(options, bytes).is_some_and(|root| !format!("{root:?}").is_empty()),
        Root::Body => verify::body(options, bytes).is_some_and(|root| !format!("{root:?}").is_empty()),
        Root::Job => verify::job_spec(options, bytes).is_some_and(|root| !format!("{root:?}").is_empty()),
        Root::Fact => verify::fact_record(options, bytes).is_some_and(|root| !format!("{root:?}").is_empty()),
    }
}

/// Holds the two against each other; says whether ours accepted.
fn compare(bytes: &[u8], root: Root) -> bool {
    let options = verifier_options(bytes.len());
    let theirs = generated(&options, bytes, root);
    // Only what the generated one accepts as well may be read.
    if verify_only(&options, bytes, root) {
        assert!(theirs, "accepted what the generated verifier refuses: {bytes:02x?}");
        assert!(ours(&options, bytes, root));
        return true;
    }
    false
}

fn verify_only(options: &VerifierOptions, bytes: &[u8], root: Root) -> bool {
    match root {
        Root::Envelope => verify::envelope(options, bytes).is_some(),
        Root::Body => verify::body(options, bytes).is_some(),
        Root::Job => verify::job_spec(options, bytes).is_some(),
        Root::Fact => verify::fact_record(options, bytes).is_some(),
    }
}

/// Honest frames of every type and of every way of sealing, honest bodies, facts of every kind, and a job.
fn honest() -> Vec<(Vec<u8>, Root)> {
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
            all.push((sealed(message, features), Root::Envelope));
        }
        let mut batch = Vec::new();
        sealer(features).seal(NOW_MS, &frequent, &mut batch);
        all.extend(frames(&batch).into_iter().map(|frame| (frame.to_vec(), Root::Envelope)));
    }
    let mut pieces = Vec::new();
    sealer(Features::NONE).seal_bulk(NOW_MS, 1, &log_chunk(noise(900)), &mut pieces).unwrap();
    all.extend(frames(&pieces).into_iter().map(|frame| (frame.to_vec(), Root::Envelope)));
    for (_, message) in samples::all() {
        all.push((
            body(|builder, args| {
                args.message_type = message.scheduler_message_type();
                args.message = message.pack(builder);
            }),
            Root::Body,
        ));
    }
    all.push((
        body(|builder, args| {
            let message = Some(fb::Heartbeat::create(builder, &Default::default()).as_union_value());
            let kind = fb::SchedulerMessage::Heartbeat;
            let item = fb::Item::create(builder, &fb::ItemArgs { message_type: kind, message });
            args.batch = Some(builder.create_vector(&[item, item]));
        }),
        Root::Body,
    ));
    all.extend(facts::all().into_iter().map(|fact| (fact, Root::Fact)));
    all.push((facts::job(), Root::Job));
    all
}

#[test]
fn there_is_an_honest_fact_of_every_kind() {
    let kinds: Vec<u8> = facts::all()
        .iter()
        .map(|bytes| verify::fact_record(&verifier_options(bytes.len()), bytes).unwrap().fact_type().0)
        .collect();
    for kind in 1..=fb::FactBody::ENUM_MAX {
        assert!(kinds.contains(&kind), "{:?}", fb::FactBody(kind));
    }
}

#[test]
fn what_is_honest_is_accepted_without_the_generated_verifier() {
    for (bytes, root) in honest() {
        assert!(compare(&bytes, root), "{bytes:02x?}");
    }
}

#[test]
fn one_changed_byte_or_a_truncation_is_never_accepted_where_the_generated_verifier_refuses() {
    let (mut accepted, mut refused) = (0, 0);
    for (bytes, root) in honest() {
        let mut bytes = bytes;
        for length in (0..bytes.len()).filter(|length| *length < 400 || length % 7 == 0) {
            compare(&bytes[..length], root);
        }
        // Of long ones, the bytes at the beginning, where the offsets are, and some of the others.
        for at in (0..bytes.len()).filter(|at| *at < 300 || at % 7 == 0) {
            let before = bytes[at];
            let few = [0, 1, 2, 3, 4, 8, 0x7f, 0x80, 0xfe, 0xff];
            for value in few.into_iter().chain([before ^ 1, before ^ 2, before ^ 4, before ^ 0x40, before ^ 0x80]) {
                bytes[at] = value;
                if compare(&bytes, root) {
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
        let (bytes, root) = &honest[random.next() as usize % honest.len()];
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
        accepted += u32::from(compare(&bytes, *root));
    }
    assert!(accepted > 5_000, "{accepted}");
}

#[test]
fn the_bounds_are_never_wider_than_the_generated_verifiers() {
    for (bytes, root) in honest() {
        for tables in 0..40 {
            let options = VerifierOptions { max_tables: tables, ..verifier_options(bytes.len()) };
            let accepted = verify_only(&options, &bytes, root);
            // Tables are counted alike.
            assert_eq!(accepted, generated(&options, &bytes, root), "{tables} tables: {bytes:02x?}");
        }
        for apparent in (0..2 * bytes.len()).step_by(3) {
            let options = VerifierOptions { max_apparent_size: apparent, ..verifier_options(bytes.len()) };
            let accepted = verify_only(&options, &bytes, root);
            assert!(!accepted || generated(&options, &bytes, root), "{apparent} bytes: {bytes:02x?}");
        }
        for depth in 0..=verify::DEPTH {
            let options = VerifierOptions { max_depth: depth, ..verifier_options(bytes.len()) };
            let accepted = verify_only(&options, &bytes, root);
            assert!(!accepted || generated(&options, &bytes, root), "depth {depth}: {bytes:02x?}");
        }
    }
}
