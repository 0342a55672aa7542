//! Compatibility with the published schema (schemas/seed): a peer built from its text alone reads
//! today's messages, as far as it names what is in them, and its fields have never moved.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

#[rustfmt::skip]
#[path = "seed/generated.rs"]
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    missing_docs,
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    deprecated,
    mismatched_lifetime_syntaxes,
    unused
)]
mod published;

use fleetwire_common::{
    envelope::{CONTROL_STREAM, Features, keys::sha256},
    fb,
    limits::STALE_AFTER_MS,
    message::{End, Message, MessageRef, Status},
};
use published as seed;
use std::{fs, path::PathBuf};
use support::{samples, *};

fn schemas() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../schemas")
}

/// Reads a frame as a peer does that knows the published schema and nothing else.
fn as_published(frame: &[u8]) -> seed::MessageEnvelope<'_> {
    let envelope = seed::size_prefixed_root_as_message_envelope(frame).unwrap();
    assert_eq!((envelope.version(), envelope.timestamp()), (1, NOW_MS));
    let signature = envelope.signature().unwrap();
    assert_eq!(signature.bytes(), &frame[frame.len() - 36..], "key id and tag");
    envelope
}

#[test]
fn a_published_peer_reads_todays_assignment() {
    let frame = sealed(&assignment(500), Features::NONE);
    let read = as_published(&frame).message_as_task_assignment().unwrap();
    assert_eq!(read.task_id(), Some("7.0.42"));
    assert_eq!(read.agent_type(), seed::AgentType::Trainer);
    let resources = read.resources().unwrap();
    assert_eq!((resources.cpu(), resources.memory(), resources.gpu(), resources.storage()), (500, 64, 1, 2));
    assert_eq!(read.storage_backend(), seed::StorageType::Local);
    assert_eq!(read.timeout(), 60);
}

#[test]
fn a_published_peer_reads_todays_status_with_its_metrics() {
    let frame = sealed(&status(16), Features::NONE);
    let read = as_published(&frame).message_as_status_update().unwrap();
    assert_eq!((read.task_id(), read.status(), read.progress()), (Some("7.0.42"), seed::TaskStatus::Running, 0.5));
    let found: Vec<(&str, f64)> = read.metrics().unwrap().iter().map(|m| (m.name().unwrap(), m.value())).collect();
    let expected = metrics(16);
    assert_eq!(found, expected.iter().map(|(name, value)| (&**name, *value)).collect::<Vec<_>>());
}

#[test]
fn a_published_peer_reads_todays_heartbeat() {
    let frame = sealed(&heartbeat(), Features::NONE);
    let read = as_published(&frame).message_as_heartbeat().unwrap();
    assert_eq!((read.cpu(), read.memory(), read.gpu(), read.storage()), (250, 512, 0, 3));
}

#[test]
fn a_published_peer_is_never_sent_what_it_cannot_read() {
    let mut out = Vec::new();
    let mut sealer = sealer(Features::NONE);
    let messages = [assignment(50_000), status(16), heartbeat()];
    let mut rest = messages.as_slice();
    while !rest.is_empty() {
        let taken = sealer.seal(NOW_MS, rest, &mut out);
        rest = &rest[taken..];
    }
    let frames = frames(&out);
    assert_eq!(frames.len(), messages.len(), "no batches");
    for (frame, message) in frames.into_iter().zip(&messages) {
        let kind = as_published(frame).message_type().0;
        assert_eq!(kind, message.kind().0, "the message is in the field that the published schema has for it");
    }
}

// §status-2
#[test]
fn statuses_beyond_the_published_four_become_the_nearest_and_their_end_says_the_rest() {
    use fb::TaskStatus as S;
    let table = [
        (S::Pending, seed::TaskStatus::Pending, None),
        (S::Running, seed::TaskStatus::Running, None),
        (S::Completed, seed::TaskStatus::Completed, None),
        (S::Failed, seed::TaskStatus::Failed, None),
        (S::Assigned, seed::TaskStatus::Pending, None),
        (S::Cancelled, seed::TaskStatus::Failed, Some(fb::EndReason::Cancelled)),
        (S::TimedOut, seed::TaskStatus::Failed, Some(fb::EndReason::RunTimeout)),
        (S::Lost, seed::TaskStatus::Failed, Some(fb::EndReason::AgentLost)),
        (S::Skipped, seed::TaskStatus::Failed, Some(fb::EndReason::DependencyUnmet)),
    ];
    assert_eq!(table.len(), S::ENUM_VALUES.len(), "every status has its row, here and in docs/protocol.md");
    for (status, nearest, reason) in table {
        let frame = sealed(&Message::Status(Status { status, ..plain_status() }), Features::NONE);
        assert_eq!(as_published(&frame).message_as_status_update().unwrap().status(), nearest, "{status:?}");
        let mut opener = opener();
        let opened = open(&mut opener, &frame).unwrap();
        let Some(MessageRef::StatusUpdate(read)) = opened.message() else { panic!("{opened:?}") };
        assert_eq!(read.update.end().map(|end| end.reason()), reason, "{status:?}");
        // An end that is given is sent as it is, and a peer that knows better gets the status itself.
        let end = Some(Box::new(End { reason: fb::EndReason::SpawnFailed, ..End::default() }));
        let frame = sealed(&Message::Status(Status { status, end, ..plain_status() }), Features::EXTENDED_STATUS);
        let opened_status = open(&mut support::opener(), &frame).unwrap().message().map(|message| match message {
            MessageRef::StatusUpdate(read) => (read.update.status(), read.update.end().unwrap().reason()),
            other => panic!("{other:?}"),
        });
        assert_eq!(opened_status, Some((status, fb::EndReason::SpawnFailed)));
    }
}

#[test]
fn today_reads_what_a_published_peer_seals() {
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let mut tail = [0u8; 36];
    tail[..4].copy_from_slice(&KEY_ID.to_le_bytes());
    let signature = Some(builder.create_vector(&tail));
    let name = Some(builder.create_string("loss"));
    let metric = seed::Metric::create(&mut builder, &seed::MetricArgs { name, value: 0.25 });
    let metrics = Some(builder.create_vector(&[metric]));
    let task_id = Some(builder.create_string("7.0.42"));
    let update = seed::StatusUpdate::create(
        &mut builder,
        &seed::StatusUpdateArgs { task_id, status: seed::TaskStatus::Completed, progress: 1.0, metrics },
    );
    let envelope = seed::MessageEnvelope::create(
        &mut builder,
        &seed::MessageEnvelopeArgs {
            version: 1,
            timestamp: NOW_MS,
            message_type: seed::SchedulerMessage::StatusUpdate,
            message: Some(update.as_union_value()),
            signature,
        },
    );
    builder.finish_size_prefixed(envelope, None);
    let mut frame = builder.finished_data().to_vec();
    sign_again(&mut frame);
    let mut opener = opener();
    let opened = opener.open(&frame, CONTROL_STREAM, NOW_MS, STALE_AFTER_MS).unwrap();
    let Some(MessageRef::StatusUpdate(read)) = opened.message() else { panic!("{opened:?}") };
    assert_eq!(read.update.status(), fb::TaskStatus::Completed);
    assert_eq!(read.metrics().collect::<Vec<_>>(), [("loss", 0.25)]);
}

/// Every field and value of the schemas in `folder`, one a line: `Table.field: type (id n)`.
fn fields(folder: &str, only: Option<&str>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut paths: Vec<_> = fs::read_dir(schemas().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|ending| ending == "fbs")) {
        if only.is_some_and(|only| path.file_name().unwrap() != only) {
            continue;
        }
        let text = fs::read_to_string(path).unwrap();
        let text: String = text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join(" ");
        for block in text.split('}') {
            let Some((head, members)) = block.split_once('{') else { continue };
            let head = head.rsplit(';').next().unwrap().trim();
            let (kind, name) = head.split_once(' ').unwrap();
            let name = name.split(':').next().unwrap().trim();
            let separator = if matches!(kind, "table" | "struct") { ';' } else { ',' };
            let mut next = usize::from(kind == "union");
            for member in members.split(separator).map(str::trim).filter(|member| !member.is_empty()) {
                let mut words: String = member.split_whitespace().collect();
                if kind == "table" {
                    if let Some((field, id)) = words.clone().split_once("(id:") {
                        next = id.trim_end_matches(')').parse().unwrap();
                        words = field.to_owned();
                    } else if words.ends_with(":SchedulerMessage") {
                        // A union takes two ids, its type and its value.
                        next += 1;
                    }
                }
                lines.push(format!("{kind} {name}.{words} = {next}"));
                next += 1;
            }
        }
    }
    lines.sort();
    lines
}

// §version-4
#[test]
fn the_published_names_types_and_ids_never_moved() {
    let today = fields("", None);
    let published = fields("seed", Some("published.fbs"));
    assert!(published.contains(&"table TaskAssignment.timeout:ulong = 4".to_owned()), "{published:?}");
    assert!(published.contains(&"table MessageEnvelope.signature:[ubyte] = 4".to_owned()), "{published:?}");
    for line in published {
        assert!(today.contains(&line), "`{line}` of the published schema is gone or moved");
    }
}

#[test]
fn the_published_code_is_made_from_the_published_text() {
    let mut paths: Vec<_> = fs::read_dir(schemas().join("seed")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut bytes = Vec::new();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|ending| ending == "fbs")) {
        bytes.extend_from_slice(path.file_name().unwrap().to_str().unwrap().as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&fs::read(path).unwrap());
        bytes.push(0);
    }
    let stamp: String = sha256(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let code = include_str!("seed/generated.rs");
    assert!(code.lines().next().unwrap().contains(&stamp), "run `node schemas/regenerate.mjs`");
}

// ---- golden bytes ----

const GOLDEN: &str = "golden/0.1";

/// What the golden file of one message holds: it alone, in a session of its own.
fn golden_frame(name: &str, message: &fb::SchedulerMessageT) -> Vec<u8> {
    let mut frame = Vec::new();
    let features = if name == "Packed" { Features::ALL } else { Features::NONE };
    assert_eq!(sealer(features).seal(NOW_MS, &[Message::Rare(message.clone())], &mut frame), 1);
    frame
}

fn golden() -> Vec<(&'static str, fb::SchedulerMessageT)> {
    let mut all = samples::all();
    let long = fb::DeregisterT { reason: Some("again and ".repeat(300)) };
    all.push(("Packed", fb::SchedulerMessageT::Deregister(Box::new(long))));
    all
}

/// `FLEETWIRE_WRITE_GOLDEN=1 cargo test -p fleetwire-common --test seed` writes what is missing, and
/// never over what is there: released bytes stay as they are.
fn write_missing(name: &str, bytes: &[u8]) {
    let path = schemas().join(GOLDEN).join(name);
    if std::env::var_os("FLEETWIRE_WRITE_GOLDEN").is_some() && !path.exists() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn read_golden(name: &str) -> Vec<u8> {
    fs::read(schemas().join(GOLDEN).join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn there_is_a_sample_of_every_message_type() {
    let found: Vec<u8> = samples::all().iter().map(|(_, message)| message.scheduler_message_type().0).collect();
    // `Chunk` travels only in pieces and has a file of its own.
    let expected: Vec<u8> =
        (1..=fb::SchedulerMessage::ENUM_MAX).filter(|n| *n != fb::SchedulerMessage::Chunk.0).collect();
    assert_eq!(found, expected);
}

#[test]
fn today_opens_the_golden_bytes_and_finds_what_was_put_into_them() {
    for (name, message) in golden() {
        write_missing(&format!("{name}.bin"), &golden_frame(name, &message));
        let frame = read_golden(&format!("{name}.bin"));
        let mut opener = opener();
        let opened = open(&mut opener, &frame).unwrap_or_else(|error| panic!("{name}: {error}"));
        let found = opened.message().unwrap();
        assert_eq!(found.kind(), message.scheduler_message_type(), "{name}");
        if name == "Packed" {
            let MessageRef::Deregister(read) = found else { panic!("{found:?}") };
            assert_eq!(fb::SchedulerMessageT::Deregister(Box::new(read.unpack())), message);
        } else {
            let envelope = flatbuffers::size_prefixed_root::<fb::MessageEnvelope<'_>>(&frame).unwrap();
            assert_eq!(envelope.unpack().message, message, "{name}");
        }
    }
}

#[test]
fn today_opens_the_golden_batch_and_the_golden_pieces() {
    let mut batch = Vec::new();
    sealer(Features(Features::ALL.0 & !Features::PACKED.0)).seal(
        NOW_MS,
        &[status(2), heartbeat(), status(2)],
        &mut batch,
    );
    write_missing("Batch.bin", &batch);
    let frame = read_golden("Batch.bin");
    let mut opener = opener();
    let opened = open(&mut opener, &frame).unwrap();
    let kinds: Vec<_> = opened.messages().map(|(_, message)| message.kind()).collect();
    use fb::SchedulerMessage as M;
    assert_eq!(kinds, [M::StatusUpdate, M::Heartbeat, M::StatusUpdate]);
    let Some((_, MessageRef::StatusUpdate(last))) = opened.messages().last() else { panic!("{opened:?}") };
    assert_eq!(last.metrics().last(), Some(("train.layer_1.loss", 0.25)));

    let mut pieces = Vec::new();
    sealer(Features::ALL).seal_bulk(NOW_MS, 1, &log_chunk(vec![b'x'; 300_000]), &mut pieces).unwrap();
    write_missing("Chunks.bin", &pieces);
    let bytes = read_golden("Chunks.bin");
    let mut opener = support::opener();
    let mut found = 0;
    for frame in frames(&bytes) {
        let opened = opener.open(frame, 1, NOW_MS, STALE_AFTER_MS).unwrap();
        if let Some(MessageRef::LogChunk(chunk)) = opened.message() {
            found += chunk.data().unwrap().len();
        }
    }
    assert_eq!(found, 300_000);
}

#[test]
fn no_field_or_value_of_version_0_1_has_moved() {
    let today = fields("", None);
    write_missing("fields.txt", (today.join("\n") + "\n").as_bytes());
    for line in String::from_utf8(read_golden("fields.txt")).unwrap().lines() {
        assert!(today.iter().any(|today| today == line), "`{line}` of version 0.1 is gone or moved");
    }
}

// §version-3
#[test]
fn ids_are_given_once_and_without_gaps() {
    let mut tables = std::collections::BTreeMap::<String, Vec<usize>>::new();
    for line in fields("", None).iter().filter(|line| line.starts_with("table")) {
        let (table, _) = line.split_once('.').unwrap();
        let id: usize = line.rsplit(' ').next().unwrap().parse().unwrap();
        let union = [":SchedulerMessage ", ":FactBody "].iter().any(|union| line.contains(union));
        let ids = tables.entry(table.to_owned()).or_default();
        ids.extend(union.then(|| id - 1));
        ids.push(id);
    }
    for (table, mut ids) in tables {
        ids.sort_unstable();
        assert!(ids.iter().copied().eq(0..ids.len()), "{table}: {ids:?}");
    }
}
