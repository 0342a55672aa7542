//! Golden vectors for those who implement the wire from docs/protocol.md alone: what every honest frame is, and what
//! each hostile one must be refused as. `schemas/golden/README.md` says how to use them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use fleetwire_common::{
    envelope::{CONTROL_STREAM, Features, OpenError, Opener},
    fb::{self, SchedulerMessage as M},
    limits::*,
    message::{Ack, End, Message, MessageRef, Status},
};
use std::{collections::BTreeSet, fs, path::PathBuf};
use support::*;

/// A hostile frame, or several of which the last is refused, each on its stream; in a session of its own.
struct Hostile {
    /// The error, and what makes it.
    name: String,
    frames: Vec<(u32, Vec<u8>)>,
}

fn hostile(error: &str, what: &str, frame: Vec<u8>) -> Hostile {
    Hostile { name: format!("{error}-{what}"), frames: vec![(CONTROL_STREAM, frame)] }
}

fn on_streams(error: &str, what: &str, frames: Vec<(u32, Vec<u8>)>) -> Hostile {
    Hostile { name: format!("{error}-{what}"), frames }
}

fn beat(builder: &mut Builder) -> flatbuffers::WIPOffset<flatbuffers::UnionWIPOffset> {
    fb::Heartbeat::create(builder, &Default::default()).as_union_value()
}

fn heartbeat_with(change: impl FnOnce(&mut Args)) -> Vec<u8> {
    forge(|builder, args| {
        args.message_type = M::Heartbeat;
        args.message = Some(beat(builder));
        change(args);
    })
}

fn pack(raw: &[u8]) -> Vec<u8> {
    forge_packed(fb::Compression::Lz4Block, raw.len() as u32, &lz4_flex::block::compress(raw))
}

fn chunk(offset: u64, total: u64) -> fb::ChunkT {
    fb::ChunkT { offset, total, data: Some(vec![1; 40]), ..Default::default() }
}

fn frames_that_are_none() -> Vec<Hostile> {
    let honest = sealed(&heartbeat(), Features::NONE);
    let changed = |at: usize| {
        let mut frame = honest.clone();
        frame[at] ^= 1;
        frame
    };
    let mut prefix = honest.clone();
    prefix[0] += 1;
    let mut garbage = noise(100);
    garbage[100 - 36..100 - 32].copy_from_slice(&KEY_ID.to_le_bytes());
    sign_again(&mut garbage);
    let mut long = vec![0; FRAME_BYTES_MAX + 1];
    let length = (long.len() - 4) as u32;
    long[..4].copy_from_slice(&length.to_le_bytes());
    let elsewhere = forge(|builder, args| {
        let lookalike = [KEY_ID.to_le_bytes().as_slice(), &[0; 32]].concat();
        args.signature = Some(builder.create_vector(&lookalike));
        args.message_type = M::Heartbeat;
        args.message = Some(beat(builder));
    });
    vec![
        hostile("TooShort", "43-bytes", honest[..43].to_vec()),
        hostile("TooLong", "beyond-the-cap", long),
        hostile("Length", "prefix", prefix),
        hostile("Length", "truncated", honest[..honest.len() - 1].to_vec()),
        hostile("KeyId", "another-epoch", changed(honest.len() - 36)),
        hostile("Signature", "flipped-bit-in-the-body", changed(20)),
        hostile("Signature", "flipped-bit-in-the-tag", changed(honest.len() - 1)),
        hostile("Malformed", "garbage-under-a-right-tag", garbage),
        hostile("SignaturePlace", "elsewhere", elsewhere),
        hostile("SignaturePlace", "absent", heartbeat_with(|args| args.signature = None)),
        hostile("Version", "2", heartbeat_with(|args| args.version = 2)),
        hostile("Stream", "3-on-the-control-stream", heartbeat_with(|args| args.stream = 3)),
        hostile("Sequence", "a-gap", heartbeat_with(|args| args.sequence = 1)),
        on_streams("Sequence", "played-twice", vec![(CONTROL_STREAM, honest.clone()), (CONTROL_STREAM, honest)]),
        hostile("Stale", "too-old", heartbeat_with(|args| args.timestamp = NOW_MS - STALE_AFTER_MS - 1)),
        hostile("Stale", "too-new", heartbeat_with(|args| args.timestamp = NOW_MS + STALE_AFTER_MS + 1)),
    ]
}

fn contents_that_may_not_be() -> Vec<Hostile> {
    let batch = |kind: M, count: usize| {
        forge(|builder, args| {
            let item = |builder: &mut Builder| {
                let message =
                    (kind != M::NONE).then(|| fb::Chunk::create(builder, &Default::default()).as_union_value());
                fb::Item::create(builder, &fb::ItemArgs { message_type: kind, message })
            };
            let items: Vec<_> = (0..count).map(|_| item(builder)).collect();
            args.batch = Some(builder.create_vector(&items));
        })
    };
    let two = forge(|builder, args| {
        args.message_type = M::Heartbeat;
        args.message = Some(beat(builder));
        let message = Some(beat(builder));
        let item = fb::Item::create(builder, &fb::ItemArgs { message_type: M::Heartbeat, message });
        args.batch = Some(builder.create_vector(&[item]));
    });
    let hollow = body(|_, _| {});
    let whole = body(|builder, args| {
        args.message_type = M::Heartbeat;
        args.message = Some(beat(builder));
    });
    let (length, data) = (whole.len() as u32, lz4_flex::block::compress(&whole));
    let lz4 = fb::Compression::Lz4Block;
    vec![
        hostile("Content", "nothing", forge(|_, _| {})),
        hostile("Content", "message-and-batch", two),
        hostile("Content", "empty-batch", batch(M::Heartbeat, 0)),
        hostile("Content", "item-without-message", batch(M::NONE, 1)),
        hostile("Content", "chunk-in-a-batch", batch(M::Chunk, 1)),
        hostile("Content", "chunk-on-the-control-stream", forge_chunk(0, 0, &chunk(0, 100))),
        on_streams("Content", "heartbeat-on-a-bulk-stream", vec![(1, heartbeat_with(|args| args.stream = 1))]),
        hostile("Content", "packed-body-without-message", pack(&hollow)),
        hostile("Malformed", "packed-body-is-garbage", pack(&noise(200))),
        hostile("Packed", "larger-than-any-body", forge_packed(lz4, BODY_BYTES_MAX as u32 + 1, &data)),
        hostile("Packed", "bomb", forge_packed(lz4, 255 * data.len() as u32 + 65, &data)),
        hostile("Packed", "longer-than-it-says", forge_packed(lz4, length - 1, &data)),
        hostile("Packed", "shorter-than-it-says", forge_packed(lz4, length + 1, &data)),
        hostile("Packed", "cut", forge_packed(lz4, length, &data[..data.len() - 1])),
        hostile("Packed", "unknown-compression", forge_packed(fb::Compression(9), length, &data)),
    ]
}

fn pieces_that_do_not_fit() -> Vec<Hostile> {
    let first = |stream: u32| (stream, forge_chunk(stream, 0, &chunk(0, 100)));
    let second = |chunk: &fb::ChunkT| vec![first(1), (1, forge_chunk(1, 1, chunk))];
    let whole = body(|builder, args| {
        args.message_type = M::Heartbeat;
        args.message = Some(beat(builder));
    });
    let only = fb::ChunkT { offset: 0, total: whole.len() as u64, data: Some(whole), ..Default::default() };
    vec![
        on_streams("Chunk", "gap", second(&chunk(41, 100))),
        on_streams("Chunk", "overlap", second(&chunk(39, 100))),
        on_streams("Chunk", "another-total", second(&chunk(40, 101))),
        on_streams("Chunk", "empty", second(&fb::ChunkT { data: None, ..chunk(40, 100) })),
        on_streams("TooLong", "body", vec![(1, forge_chunk(1, 0, &chunk(0, BODY_BYTES_MAX as u64 + 1)))]),
        on_streams("BulkStreams", "three", vec![first(1), first(2), first(3)]),
        on_streams("StreamEnded", "used-again", vec![(1, forge_chunk(1, 0, &only)), (1, forge_chunk(1, 0, &only))]),
    ]
}

fn statuses_that_cannot_be() -> Vec<Hostile> {
    let status = |error: &str, what: &str, change: fn(&mut fb::StatusUpdateT)| {
        let mut update = fb::StatusUpdateT { task_id: Some("7.0.42".into()), attempt: 1, ..Default::default() };
        change(&mut update);
        hostile(error, what, forge_status(&update))
    };
    fn metric(name: &str, value: f64) -> fb::MetricT {
        fb::MetricT { name: Some(name.into()), value }
    }
    fn names(names: &[(u16, &str)]) -> Option<Vec<fb::MetricNameT>> {
        Some(names.iter().map(|(id, name)| fb::MetricNameT { id: *id, name: Some((*name).to_owned()) }).collect())
    }
    vec![
        status("Number", "progress-is-not-a-number", |update| update.progress = f32::NAN),
        status("Number", "progress-beyond-1", |update| update.progress = 1.5),
        status("Number", "metric-is-infinite", |update| update.metrics = Some(vec![metric("a", f64::INFINITY)])),
        status("Status", "unknown", |update| update.status = fb::TaskStatus(100)),
        status("Metrics", "too-many", |update| update.metrics = Some(vec![metric("a", 1.0); METRICS_MAX + 1])),
        status("Metrics", "number-without-value", |update| {
            (update.metric_names, update.metric_ids) = (names(&[(0, "a")]), Some(vec![0]));
        }),
        status("Metrics", "number-never-defined", |update| {
            (update.metric_ids, update.metric_values) = (Some(vec![3]), Some(vec![1.0]));
        }),
        status("MetricName", "a-gap", |update| update.metric_names = names(&[(1, "a")])),
        status("MetricName", "empty", |update| update.metric_names = names(&[(0, "")])),
    ]
}

fn all() -> Vec<Hostile> {
    let mut all = frames_that_are_none();
    all.extend(contents_that_may_not_be());
    all.extend(pieces_that_do_not_fit());
    all.extend(statuses_that_cannot_be());
    all
}

/// The name of an error in the vectors. A variant that is new does not compile before it has one.
fn name(error: &OpenError) -> &'static str {
    match error {
        OpenError::TooShort { .. } => "TooShort",
        OpenError::TooLong { .. } => "TooLong",
        OpenError::Length { .. } => "Length",
        OpenError::KeyId { .. } => "KeyId",
        OpenError::Signature => "Signature",
        OpenError::Malformed { .. } => "Malformed",
        OpenError::SignaturePlace => "SignaturePlace",
        OpenError::Version { .. } => "Version",
        OpenError::Stream { .. } => "Stream",
        OpenError::Sequence { .. } => "Sequence",
        OpenError::Stale { .. } => "Stale",
        OpenError::Content(_) => "Content",
        OpenError::Packed(_) => "Packed",
        OpenError::Chunk { .. } => "Chunk",
        OpenError::StreamEnded { .. } => "StreamEnded",
        OpenError::BulkStreams => "BulkStreams",
        OpenError::MetricName(_) => "MetricName",
        OpenError::Metrics(_) => "Metrics",
        OpenError::Status { .. } => "Status",
        OpenError::Number { .. } => "Number",
    }
}

const ERRORS: usize = 20;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../schemas/golden/0.1/hostile")
}

/// What a file holds: each frame behind the number of the stream that it came on and its own length.
fn file(frames: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (stream, frame) in frames {
        bytes.extend_from_slice(&stream.to_le_bytes());
        bytes.extend_from_slice(&(frame.len() as u32).to_le_bytes());
        bytes.extend_from_slice(frame);
    }
    bytes
}

fn read(mut bytes: &[u8]) -> Vec<(u32, &[u8])> {
    let mut frames = Vec::new();
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    while !bytes.is_empty() {
        let (stream, length) = (number(&bytes[..4]), number(&bytes[4..8]) as usize);
        frames.push((stream, &bytes[8..8 + length]));
        bytes = &bytes[8 + length..];
    }
    frames
}

/// What a session says of the last of these frames, having taken the others.
fn refused(frames: &[(u32, &[u8])]) -> Option<OpenError> {
    let mut opener: Opener = opener();
    let (last, before) = frames.split_last().unwrap();
    for (stream, frame) in before {
        opener.open(frame, *stream, NOW_MS, STALE_AFTER_MS).unwrap();
    }
    match opener.open(last.1, last.0, NOW_MS, STALE_AFTER_MS) {
        Ok(opened) => opened.refused().first().map(|(_, error)| error.clone()),
        Err(error) => Some(error),
    }
}

// §open-13
/// `FLEETWIRE_WRITE_GOLDEN=1` writes what is missing, and never over what is there.
#[test]
fn every_hostile_vector_is_refused_as_its_name_says() {
    for Hostile { name: vector, frames } in all() {
        let path = folder().join(format!("{vector}.bin"));
        if std::env::var_os("FLEETWIRE_WRITE_GOLDEN").is_some() && !path.exists() {
            fs::create_dir_all(folder()).unwrap();
            fs::write(&path, file(&frames)).unwrap();
        }
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{vector}: {error}"));
        let error = refused(&read(&bytes)).unwrap_or_else(|| panic!("{vector} is taken"));
        assert!(vector.starts_with(&format!("{}-", name(&error))), "{vector}: {error}");
    }
}

#[test]
fn every_error_has_a_hostile_vector_and_every_vector_its_source() {
    let vectors: BTreeSet<String> = all().into_iter().map(|hostile| format!("{}.bin", hostile.name)).collect();
    let found: BTreeSet<String> =
        fs::read_dir(folder()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, vectors);
    let errors: BTreeSet<&str> = vectors.iter().filter_map(|vector| vector.split('-').next()).collect();
    assert_eq!(errors.len(), ERRORS, "{errors:?}");
}

// ---- what other implementations seal ----

/// The messages of honest frames, unpacked whole; each frame was opened before.
fn contents(bytes: &[u8], stream: u32) -> Vec<fb::SchedulerMessageT> {
    let (mut opener, mut found, mut assembled) = (opener(), Vec::new(), Vec::new());
    let unpacked = |raw: &[u8]| flatbuffers::root::<fb::Body<'_>>(raw).unwrap().unpack();
    for frame in frames(bytes) {
        opener.open(frame, stream, NOW_MS, STALE_AFTER_MS).unwrap();
        let envelope = flatbuffers::size_prefixed_root::<fb::MessageEnvelope<'_>>(frame).unwrap().unpack();
        let body = match (envelope.message, envelope.packed) {
            (fb::SchedulerMessageT::Chunk(chunk), _) => {
                assembled.extend(chunk.data.unwrap());
                if (assembled.len() as u64) < chunk.total {
                    continue;
                }
                match chunk.compression {
                    fb::Compression::None => unpacked(&assembled),
                    _ => unpacked(&lz4_flex::block::decompress(&assembled, chunk.raw_len as usize).unwrap()),
                }
            }
            (_, Some(packed)) => {
                unpacked(&lz4_flex::block::decompress(&packed.data.unwrap(), packed.raw_len as usize).unwrap())
            }
            (message, None) => fb::BodyT { message, batch: envelope.batch },
        };
        match body.batch {
            Some(items) => found.extend(items.into_iter().map(|item| item.message)),
            None => found.push(body.message),
        }
    }
    found
}

/// As text in which an empty vector reads as an absent one: they mean the same, and not every language can tell them
/// apart.
fn alike(messages: &[fb::SchedulerMessageT]) -> String {
    format!("{messages:?}").replace("Some([])", "None")
}

/// tests/interop/run has other implementations read what today's build seals as well: the golden files are of the
/// version that they were made with.
#[test]
#[ignore = "writes frames for other implementations: tests/interop/run"]
fn what_we_seal_today_is_written_for_others() {
    let folder = PathBuf::from(std::env::var_os("FLEETWIRE_OUR_FRAMES").expect("the folder for our frames"));
    fs::create_dir_all(&folder).unwrap();
    let end = End { result: Some(vec![5; 9]), message: "it ended".into(), wall_us: 7, ..Default::default() };
    let ended = Status { end: Some(Box::new(end)), status: fb::TaskStatus::Completed, ..plain_status() };
    let frequent = [
        assignment(300),
        status(16),
        Message::Status(ended),
        heartbeat(),
        Message::Acceptance(attempt()),
        Message::Cancellation(attempt(), fb::EndReason::Cancelled),
        Message::Recall(attempt()),
        Message::Ack(Ack::Final(attempt())),
        Message::Ack(Ack::Request(9)),
    ];
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    for (name, message) in samples::all() {
        all.push((name.into(), sealed(&Message::Rare(message), Features::NONE)));
    }
    for (number, message) in frequent.iter().enumerate() {
        all.push((format!("Frequent{number}"), sealed(message, Features(Features::ALL.0 & !Features::PACKED.0))));
    }
    for (name, features) in [("Batch", Features::BATCH), ("Packed", Features::ALL)] {
        let mut frame = Vec::new();
        assert_eq!(sealer(features).seal(NOW_MS, &frequent, &mut frame), frequent.len());
        all.push((name.into(), frame));
    }
    let mut pieces = Vec::new();
    sealer(Features::NONE).seal_bulk(NOW_MS, 1, &assignment(300_000), &mut pieces).unwrap();
    all.push(("Chunks".into(), pieces));
    // A piece alone is none that a session would take.
    for (name, frame) in all.iter().filter(|(name, _)| name != "Chunk") {
        fs::write(folder.join(format!("{name}.bin")), frame).unwrap();
    }
}

/// tests/interop/run has other implementations read the golden files and seal what they read anew.
#[test]
#[ignore = "needs frames that another implementation sealed: tests/interop/run"]
fn what_others_seal_is_opened_and_is_what_they_read() {
    let peer = PathBuf::from(std::env::var_os("FLEETWIRE_PEER_FRAMES").expect("the folder with their frames"));
    let honest = std::env::var_os("FLEETWIRE_OUR_FRAMES").map_or(folder().join(".."), PathBuf::from);
    let older = peer.ends_with("python-previous");
    let mut count = 0;
    for file in fs::read_dir(&honest).unwrap().map(|file| file.unwrap().file_name()) {
        let name = file.to_str().unwrap();
        // An older peer does not know the newest messages.
        if !name.ends_with(".bin") || (older && !peer.join(name).exists()) {
            continue;
        }
        let stream = u32::from(name == "Chunks.bin");
        let expected = contents(&fs::read(honest.join(name)).unwrap(), stream);
        let theirs = contents(&fs::read(peer.join(name)).unwrap_or_else(|error| panic!("{name}: {error}")), stream);
        match older {
            // What it does not know is absent, which check.py looks at.
            true => {
                let kinds = |messages: &[fb::SchedulerMessageT]| -> Vec<_> {
                    messages.iter().map(fb::SchedulerMessageT::scheduler_message_type).collect()
                };
                assert_eq!(kinds(&theirs), kinds(&expected), "{name}");
            }
            false => assert_eq!(alike(&theirs), alike(&expected), "{name}"),
        }
        count += 1;
    }
    // A newer peer's new message is passed over, and its session goes on.
    if let Ok(frame) = fs::read(peer.join("Novelty.bin")) {
        let mut opener = opener();
        let opened = open(&mut opener, &frame).unwrap();
        assert!(matches!(opened.message(), Some(MessageRef::Unknown(kind)) if kind == M::ENUM_MAX + 1));
        count += 1;
    }
    assert!(count > 20, "{count}");
    println!("{count} files sealed by {} opened, each with what it read", peer.display());
}
