//! Every message goes both ways between today's code and that of a version before it, whose tables lack their newest
//! field and whose union lacks the newest message, and of one after it, whose tables and union have one more.
//!
//! These peers have nothing of ours but the generated code of their own schemas and the session's key: they check the
//! tag, verify, unpack, and seal anew what they understood.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../../../common/tests/support/mod.rs"]
mod support;

#[path = "../../../target/evolution/next.rs"]
#[rustfmt::skip]
#[allow(warnings, clippy::all)]
mod generated_next;

#[path = "../../../target/evolution/previous.rs"]
#[rustfmt::skip]
#[allow(warnings, clippy::all)]
mod generated_previous;

use fleetwire_common::{
    envelope::{
        Features, SIGNATURE_BYTES,
        handshake::HelloInfo,
        keys::{RootKeys, Secret},
    },
    fb,
    ids::{Name, Principal, SessionId},
    limits::STALE_AFTER_MS,
    message::{Message, MessageRef},
    time::Time,
    verified::verifier_options,
};
use fleetwire_scheduler_core::{Config, Effect, Effects, Event, Origin, Policy, Scheduler};
use std::{fs, path::PathBuf, time::Duration};
use support::*;

/// How messages travel.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Plain,
    Batch,
    Packed,
    Chunks,
}

/// A peer with the generated code in `$schema`.
macro_rules! peer {
    ($name:ident, $schema:path) => {
        mod $name {
            use super::*;
            use schema::SchedulerMessageT as M;
            use $schema as schema;

            /// What came: the messages of these frames, all of one session and stream. What this version does not know is
            /// `M::NONE`.
            pub fn read(bytes: &[u8]) -> Vec<M> {
                let (mut found, mut assembled) = (Vec::new(), Vec::new());
                let body = |raw: &[u8]| {
                    flatbuffers::root_with_opts::<schema::Body<'_>>(&verifier_options(raw.len()), raw).unwrap().unpack()
                };
                for frame in frames(bytes) {
                    let (signed, tag) = frame.split_at(frame.len() - 32);
                    assert!(key().verify(signed, tag));
                    let options = verifier_options(frame.len());
                    let envelope =
                        flatbuffers::size_prefixed_root_with_opts::<schema::MessageEnvelope<'_>>(&options, frame)
                            .unwrap();
                    assert_eq!(envelope.signature().unwrap().bytes(), &frame[frame.len() - SIGNATURE_BYTES..]);
                    let envelope = envelope.unpack();
                    let body = match (envelope.message, envelope.packed) {
                        (M::Chunk(chunk), _) => {
                            assembled.extend(chunk.data.unwrap());
                            if (assembled.len() as u64) < chunk.total {
                                continue;
                            }
                            match chunk.compression {
                                schema::Compression::None => body(&assembled),
                                _ => body(&unpack(&assembled, chunk.raw_len)),
                            }
                        }
                        (_, Some(packed)) => body(&unpack(&packed.data.unwrap(), packed.raw_len)),
                        (message, None) => schema::BodyT { message, batch: envelope.batch, ..Default::default() },
                    };
                    match body.batch {
                        Some(items) => found.extend(items.into_iter().map(|item| item.message)),
                        None => found.push(body.message),
                    }
                }
                found
            }

            /// Seals them, in a session of their own.
            #[allow(dead_code, reason = "today's peer seals with its own code")]
            pub fn seal(messages: Vec<M>, form: Form) -> Vec<u8> {
                let items = |messages: Vec<M>| {
                    messages.into_iter().map(|message| schema::ItemT { message, ..Default::default() }).collect()
                };
                let body = |mut messages: Vec<M>| {
                    let body = match messages.len() {
                        1 => schema::BodyT { message: messages.remove(0), ..Default::default() },
                        _ => schema::BodyT { batch: Some(items(messages)), ..Default::default() },
                    };
                    let mut builder = Builder::new();
                    let root = body.pack(&mut builder);
                    builder.finish_minimal(root);
                    builder.finished_data().to_vec()
                };
                match form {
                    Form::Plain => {
                        let one = |(sequence, message): (usize, M)| {
                            let message = schema::MessageEnvelopeT { message, ..Default::default() };
                            envelope(message, 0, sequence as u64)
                        };
                        messages.into_iter().enumerate().flat_map(one).collect()
                    }
                    Form::Batch => {
                        let batch = Some(items(messages));
                        envelope(schema::MessageEnvelopeT { batch, ..Default::default() }, 0, 0)
                    }
                    Form::Packed => {
                        let raw = body(messages);
                        let packed = schema::PackedT {
                            compression: schema::Compression::Lz4Block,
                            raw_len: raw.len() as u32,
                            data: Some(lz4_flex::block::compress(&raw)),
                            ..Default::default()
                        };
                        let packed = Some(Box::new(packed));
                        envelope(schema::MessageEnvelopeT { packed, ..Default::default() }, 0, 0)
                    }
                    Form::Chunks => {
                        let raw = body(messages);
                        let piece = |(sequence, piece): (usize, &[u8])| {
                            let chunk = schema::ChunkT {
                                offset: (sequence * 1_000) as u64,
                                total: raw.len() as u64,
                                data: Some(piece.to_vec()),
                                ..Default::default()
                            };
                            let message = M::Chunk(Box::new(chunk));
                            envelope(schema::MessageEnvelopeT { message, ..Default::default() }, 1, sequence as u64)
                        };
                        raw.chunks(1_000).enumerate().flat_map(piece).collect()
                    }
                }
            }

            #[allow(dead_code, reason = "as above")]
            /// The signature is created first, so that it is the frame's tail.
            fn envelope(content: schema::MessageEnvelopeT, stream: u32, sequence: u64) -> Vec<u8> {
                let mut builder = Builder::new();
                let mut tail = [0; SIGNATURE_BYTES];
                tail[..4].copy_from_slice(&KEY_ID.to_le_bytes());
                let signature = Some(builder.create_vector(&tail));
                let packed = content.packed.map(|packed| packed.pack(&mut builder));
                let batch = content.batch.map(|items| {
                    let items: Vec<_> = items.iter().map(|item| item.pack(&mut builder)).collect();
                    builder.create_vector(&items)
                });
                let args = schema::MessageEnvelopeArgs {
                    version: 1,
                    timestamp: NOW_MS,
                    message_type: content.message.scheduler_message_type(),
                    message: content.message.pack(&mut builder),
                    signature,
                    stream,
                    sequence,
                    packed,
                    batch,
                    ..Default::default()
                };
                let root = schema::MessageEnvelope::create(&mut builder, &args);
                builder.finish_size_prefixed(root, None);
                let mut frame = builder.finished_data().to_vec();
                sign_again(&mut frame);
                frame
            }
        }
    };
}

peer!(today, fleetwire_common::fb);
peer!(next, crate::generated_next::fleetwire);
peer!(previous, crate::generated_previous::fleetwire);

fn unpack(data: &[u8], raw_len: u32) -> Vec<u8> {
    lz4_flex::block::decompress(data, raw_len as usize).unwrap()
}

/// Frames that today's code seals or has sealed, how, and their messages.
fn todays() -> Vec<(String, Form, Vec<u8>, Vec<fb::SchedulerMessageT>)> {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../schemas/golden/0.1");
    let mut all = Vec::new();
    for path in fs::read_dir(golden).unwrap().map(|file| file.unwrap().path()) {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let form = match name.as_str() {
            "Batch" => Form::Batch,
            "Packed" => Form::Packed,
            "Chunks" => Form::Chunks,
            _ if path.extension().is_none_or(|extension| extension != "bin") => continue,
            _ => Form::Plain,
        };
        let bytes = fs::read(&path).unwrap();
        all.push((name, form, bytes.clone(), today::read(&bytes)));
    }
    let mut now = sealer(Features::ALL);
    for (name, message) in samples::all() {
        let mut bytes = Vec::new();
        if matches!(message, fb::SchedulerMessageT::Chunk(_)) {
            continue;
        }
        now.seal(NOW_MS, &[Message::Rare(message.clone())], &mut bytes);
        all.push((format!("{name}, sealed now"), Form::Plain, bytes, vec![message]));
    }
    let kinds = all.iter().flat_map(|(_, _, _, messages)| messages).map(fb::SchedulerMessageT::scheduler_message_type);
    let mut kinds: Vec<u8> = kinds.map(|kind| kind.0).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds.len(), usize::from(fb::SchedulerMessage::ENUM_MAX) - 1, "every message but chunks: {kinds:?}");
    all
}

/// Today's opener takes all of it.
fn open_today(bytes: &[u8], form: Form) -> Vec<fb::SchedulerMessageT> {
    let mut opener = opener();
    for frame in frames(bytes) {
        let opened = opener.open(frame, u32::from(form == Form::Chunks), NOW_MS, STALE_AFTER_MS).unwrap();
        assert!(opened.refused().is_empty());
        assert!(opened.messages().all(|(_, message)| !matches!(message, MessageRef::Unknown(_))));
    }
    today::read(bytes)
}

/// An empty vector and an absent one mean the same.
fn text(messages: &impl std::fmt::Debug) -> String {
    format!("{messages:#?}").replace("Some([])", "None")
}

/// The lines of `long` that are left where those of `short` are taken out, in their order; `None` if not all are there.
fn beyond<'a>(long: &'a str, short: &str) -> Option<Vec<&'a str>> {
    let (mut left, mut short) = (Vec::new(), short.lines().peekable());
    for line in long.lines() {
        if short.next_if_eq(&line).is_none() {
            left.push(line.trim());
        }
    }
    short.next().is_none().then_some(left)
}

#[test]
fn a_later_version_understands_everything_and_is_understood() {
    for (name, form, bytes, ours) in todays() {
        let theirs = next::read(&bytes);
        let more = text(&theirs);
        let left = beyond(&more, &text(&ours)).unwrap_or_else(|| panic!("{name}: {more} instead of {}", text(&ours)));
        assert!(!left.is_empty() && left.iter().all(|line| *line == "later: \"unheard of\","), "{name}: {left:?}");
        let sealed = next::seal(theirs, form);
        let unheard = sealed.windows(10).any(|bytes| bytes == b"unheard of");
        assert!(unheard || form == Form::Packed, "{name}: there is nothing new in it");
        assert_eq!(text(&open_today(&sealed, form)), text(&ours), "{name}");
    }
}

#[test]
fn an_earlier_version_understands_what_it_knows_and_is_understood() {
    let removed = fs::read_to_string("../../target/evolution/removed.txt").unwrap();
    let (mut unknown, mut lacking) = (Vec::new(), 0);
    for (name, form, bytes, ours) in todays() {
        let theirs = previous::read(&bytes);
        if theirs.iter().any(|message| matches!(message, generated_previous::fleetwire::SchedulerMessageT::NONE)) {
            unknown.push(ours[0].scheduler_message_type());
            continue;
        }
        let less = text(&theirs);
        let left = text(&ours);
        lacking += usize::from(!beyond(&left, &less).unwrap_or_else(|| panic!("{name}: {less} of {left}")).is_empty());
        let back = text(&open_today(&previous::seal(theirs, form), form));
        for line in beyond(&back, &less).unwrap_or_else(|| panic!("{name}: {back} of {less}")) {
            let (field, _) = line.split_once(':').unwrap_or_else(|| panic!("{name}: {line}"));
            assert!(removed.lines().any(|removed| removed == field), "{name}: {line}");
        }
    }
    assert!(unknown.iter().all(|kind| *kind == fb::SchedulerMessage(fb::SchedulerMessage::ENUM_MAX)) && unknown.len() == 2, "{unknown:?}");
    assert!(lacking > 20, "in {lacking} something is missing that today's code says");
}

#[test]
fn a_message_of_a_later_version_is_passed_over_with_a_typed_nack_and_the_session_goes_on() {
    use generated_next::fleetwire as later;
    let novelty = later::NoveltyT { text: Some("news".into()), ..Default::default() };
    let query = later::QueryT { request: 7, kind: later::QueryKind::Cluster, ..Default::default() };
    let messages =
        vec![later::SchedulerMessageT::Novelty(Box::new(novelty)), later::SchedulerMessageT::Query(Box::new(query))];

    let (mut core, mut effects, now, session) = scheduler();
    let sealed = next::seal(messages, Form::Plain);
    let mut opener = opener();
    for frame in frames(&sealed) {
        let opened = open(&mut opener, frame).unwrap();
        for (item, message) in opened.messages() {
            let from = Origin { stream: 0, sequence: opened.sequence, item, timestamp_ms: NOW_MS };
            core.handle(now, Event::Received { session, from, message }, &mut effects);
        }
    }
    let mut answers: Vec<Effect> = effects.drain_prompt().collect();
    answers.extend(effects.drain().map(|(_, effect)| effect));
    let mut answers = answers.into_iter();
    let mut next = || match answers.next() {
        Some(Effect::Send { message: Message::Rare(message), .. }) => message,
        other => panic!("{other:?}"),
    };
    let fb::SchedulerMessageT::Nack(nack) = next() else { panic!("no Nack") };
    assert_eq!((nack.code, nack.sequence, nack.item), (fb::ErrorCode::UnknownMessage, 0, 0));
    let fb::SchedulerMessageT::Page(page) = next() else { panic!("no Page") };
    assert!(page.request == 7 && page.cluster.is_some());
}

/// A scheduler with one operator's session.
fn scheduler() -> (Scheduler, Effects, Time, SessionId) {
    let mut core = Scheduler::new(Config {
        cluster: "c".into(),
        keys: RootKeys::new(Secret::new([1; 32])),
        authority_sha256: [2; 32],
        addresses: Vec::new(),
        incarnation_id: [3; 16],
        seed: 4,
        heartbeat_interval: Duration::from_secs(30),
        software: "test".into(),
        accept_restore: false,
        policy: Policy::default(),
    });
    let (mut effects, now, session) = (Effects::new(), Time::from_ms(NOW_MS), SessionId(1));
    core.start(now, &mut effects);
    let (name, role) = (Name::new("anna").unwrap(), fb::Role::Operator);
    core.handle(now, Event::EnrolLocally { name: name.clone(), role, key_sha256: [5; 32] }, &mut effects);
    let hello = HelloInfo {
        features: Features::ALL,
        boot_id: [1; 16],
        process_start_id: [2; 16],
        receipt: None,
        software: "test".into(),
    };
    core.handle(now, Event::Connected { session, principal: Principal { role, name }, hello, address: "::1" }, &mut effects);
    effects.drain_prompt().for_each(drop);
    effects.drain().for_each(drop);
    (core, effects, now, session)
}
