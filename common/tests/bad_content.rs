//! Frames that are authentic and in order, and whose content may not be: one test for each class, each
//! refused with an error that names the cause, or passed over where the protocol says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use fleetwire_common::{
    envelope::{Features, OpenError},
    fb,
    limits::*,
    message::{MessageRef, MetricNameError},
};
use support::*;

// §envelope-1 §open-9
#[test]
fn an_envelope_holds_exactly_one_of_message_packed_and_batch() {
    let beat = |builder: &mut Builder| fb::Heartbeat::create(builder, &Default::default()).as_union_value();
    let none = forge(|_, _| {});
    let two = forge(|builder, args| {
        args.message_type = fb::SchedulerMessage::Heartbeat;
        args.message = Some(beat(builder));
        let value = Some(beat(builder));
        let item = fb::ItemArgs { message_type: fb::SchedulerMessage::Heartbeat, message: value };
        let item = fb::Item::create(builder, &item);
        args.batch = Some(builder.create_vector(&[item]));
    });
    let packed_too = forge(|builder, args| {
        args.message_type = fb::SchedulerMessage::Heartbeat;
        args.message = Some(beat(builder));
        args.packed = Some(fb::Packed::create(builder, &Default::default()));
    });
    for frame in [none, two, packed_too] {
        assert!(matches!(refusal(&frame), OpenError::Content(_)), "{}", refusal(&frame));
    }
}

fn batch_of(kinds: &[(fb::SchedulerMessage, bool)]) -> Vec<u8> {
    forge(|builder, args| {
        let mut items = Vec::new();
        for (kind, value) in kinds {
            let message = value.then(|| fb::Chunk::create(builder, &Default::default()).as_union_value());
            items.push(fb::Item::create(builder, &fb::ItemArgs { message_type: *kind, message }));
        }
        args.batch = Some(builder.create_vector(&items));
    })
}

// §envelope-2 §envelope-3
#[test]
fn batches_do_not_nest_are_not_empty_and_are_bounded() {
    use fb::SchedulerMessage as M;
    // A chunk would hold a body, which could hold a batch.
    let nested = batch_of(&[(M::Chunk, true)]);
    let empty = batch_of(&[]);
    let hollow = batch_of(&[(M::NONE, false)]);
    let long = batch_of(&vec![(M(200), true); BATCH_ITEMS_MAX + 1]);
    for frame in [nested, empty, hollow, long] {
        assert!(matches!(refusal(&frame), OpenError::Content(_)), "{}", refusal(&frame));
    }
    let frame = batch_of(&vec![(M(200), true); BATCH_ITEMS_MAX]);
    let mut opener = opener();
    assert_eq!(open(&mut opener, &frame).unwrap().messages().count(), BATCH_ITEMS_MAX);
}

fn pack(raw: &[u8]) -> Vec<u8> {
    forge_packed(fb::Compression::Lz4Block, raw.len() as u32, &lz4_flex::block::compress(raw))
}

#[test]
fn a_packed_body_holds_one_message_or_batch_and_no_chunk() {
    use fb::SchedulerMessage as M;
    let hollow = body(|_, _| {});
    let chunk = body(|builder, args| {
        args.message_type = M::Chunk;
        args.message = Some(fb::Chunk::create(builder, &Default::default()).as_union_value());
    });
    let both = body(|builder, args| {
        args.message_type = M::Heartbeat;
        args.message = Some(fb::Heartbeat::create(builder, &Default::default()).as_union_value());
        let value = Some(fb::Heartbeat::create(builder, &Default::default()).as_union_value());
        let item = fb::Item::create(builder, &fb::ItemArgs { message_type: M::Heartbeat, message: value });
        args.batch = Some(builder.create_vector(&[item]));
    });
    for raw in [hollow, chunk, both] {
        assert!(matches!(refusal(&pack(&raw)), OpenError::Content(_)), "{}", refusal(&pack(&raw)));
    }
    assert!(matches!(refusal(&pack(&noise(200))), OpenError::Malformed { what: "body", .. }));
}

// §open-10 §lz4-2 §lz4-3
#[test]
fn decompression_bombs_and_wrong_lengths_are_refused() {
    let raw = body(|builder, args| {
        args.message_type = fb::SchedulerMessage::Heartbeat;
        args.message = Some(fb::Heartbeat::create(builder, &Default::default()).as_union_value());
    });
    let data = lz4_flex::block::compress(&raw);
    let length = raw.len() as u32;
    let lz4 = fb::Compression::Lz4Block;
    let bomb = lz4_flex::block::compress(&vec![0; 4 << 20]);
    let mut wrong = vec![
        forge_packed(lz4, BODY_BYTES_MAX as u32 + 1, &data),
        forge_packed(lz4, u32::MAX, &data),
        // More than an LZ4 block can expand to: refused before anything is allocated.
        forge_packed(lz4, 255 * data.len() as u32 + 65, &data),
        forge_packed(lz4, length + 1, &data),
        forge_packed(lz4, length - 1, &data),
        forge_packed(lz4, 0, &data),
        forge_packed(lz4, length, &[]),
        forge_packed(lz4, length, &data[..data.len() - 1]),
        forge_packed(lz4, length, &noise(data.len())),
        // Says little, would become much.
        forge_packed(lz4, 1_000, &bomb),
        forge_packed(fb::Compression::None, length, &raw),
        forge_packed(fb::Compression(9), length, &data),
    ];
    wrong.push(forge(|builder, args| args.packed = Some(fb::Packed::create(builder, &Default::default()))));
    for frame in wrong {
        assert!(matches!(refusal(&frame), OpenError::Packed(_)), "{}", refusal(&frame));
    }
    open(&mut opener(), &forge_packed(lz4, length, &data)).unwrap();
}

fn chunk(offset: u64, total: u64, data: &[u8]) -> fb::ChunkT {
    fb::ChunkT { offset, total, data: Some(data.to_vec()), ..Default::default() }
}

// §stream-4 §stream-6
#[test]
fn pieces_that_do_not_continue_their_body_are_refused() {
    let first = forge_chunk(1, 0, &chunk(0, 100, &[1; 40]));
    let seconds = [
        ("overlap", chunk(39, 100, &[1; 10])),
        ("repeat", chunk(0, 100, &[1; 40])),
        ("gap", chunk(41, 100, &[1; 10])),
        ("beyond the total", chunk(40, 100, &[1; 61])),
        ("another total", chunk(40, 101, &[1; 10])),
        ("empty", chunk(40, 100, &[])),
        ("far away", chunk(u64::MAX, 100, &[1; 10])),
        ("compressed from here on", fb::ChunkT { compression: fb::Compression::Lz4Block, ..chunk(40, 100, &[1; 10]) }),
        ("raw length from here on", fb::ChunkT { raw_len: 5, ..chunk(40, 100, &[1; 10]) }),
    ];
    for (what, second) in seconds {
        let mut opener = opener();
        assert!(opener.open(&first, 1, NOW_MS, STALE_AFTER_MS).unwrap().message().is_none());
        let frame = forge_chunk(1, 1, &second);
        let error = opener.open(&frame, 1, NOW_MS, STALE_AFTER_MS).unwrap_err();
        assert!(matches!(error, OpenError::Chunk { expected: 40, .. }), "{what}: {error}");
        assert!(error.is_fatal());
    }
    for (what, first) in
        [("offset", chunk(1, 100, &[1; 10])), ("no bytes", chunk(0, 0, &[])), ("too much", chunk(0, 5, &[1; 6]))]
    {
        let frame = forge_chunk(1, 0, &first);
        let error = opener().open(&frame, 1, NOW_MS, STALE_AFTER_MS).unwrap_err();
        assert!(matches!(error, OpenError::Chunk { expected: 0, .. }), "{what}: {error}");
    }
}

// §stream-1 §stream-5
#[test]
fn bodies_in_pieces_are_bounded_and_so_are_their_streams() {
    for total in [BODY_BYTES_MAX as u64 + 1, u64::MAX] {
        let frame = forge_chunk(1, 0, &chunk(0, total, &[1; 10]));
        let error = opener().open(&frame, 1, NOW_MS, STALE_AFTER_MS).unwrap_err();
        assert!(matches!(error, OpenError::TooLong { max: BODY_BYTES_MAX, .. }), "{error}");
    }
    let bomb = fb::ChunkT {
        compression: fb::Compression::Lz4Block,
        raw_len: BODY_BYTES_MAX as u32,
        ..chunk(0, 1_000, &[1; 10])
    };
    let error = opener().open(&forge_chunk(1, 0, &bomb), 1, NOW_MS, STALE_AFTER_MS).unwrap_err();
    assert!(matches!(error, OpenError::Packed(_)), "{error}");

    let mut opener = opener();
    for stream in 1..=BULK_STREAMS_MAX as u32 {
        opener.open(&forge_chunk(stream, 0, &chunk(0, 100, &[1; 10])), stream, NOW_MS, STALE_AFTER_MS).unwrap();
    }
    let one_more = forge_chunk(9, 0, &chunk(0, 100, &[1; 10]));
    assert_eq!(opener.open(&one_more, 9, NOW_MS, STALE_AFTER_MS).unwrap_err(), OpenError::BulkStreams);
    opener.close_bulk(1);
    opener.open(&one_more, 9, NOW_MS, STALE_AFTER_MS).unwrap();
    let again = forge_chunk(1, 0, &chunk(0, 100, &[1; 10]));
    assert_eq!(opener.open(&again, 1, NOW_MS, STALE_AFTER_MS).unwrap_err(), OpenError::StreamEnded { stream: 1 });
}

// §stream-2
#[test]
fn a_body_in_pieces_is_not_played_twice() {
    let mut bytes = Vec::new();
    sealer(Features::ALL).seal_bulk(NOW_MS, 3, &log_chunk(noise(300_000)), &mut bytes).unwrap();
    let mut opener = opener();
    let pieces = frames(&bytes);
    for piece in &pieces {
        opener.open(piece, 3, NOW_MS, STALE_AFTER_MS).unwrap();
    }
    for piece in &pieces {
        let error = opener.open(piece, 3, NOW_MS, STALE_AFTER_MS).unwrap_err();
        assert_eq!(error, OpenError::StreamEnded { stream: 3 });
    }
}

// §stream-3
#[test]
fn chunks_keep_to_bulk_streams_and_nothing_else_goes_there() {
    let frame = forge_chunk(0, 0, &chunk(0, 100, &[1; 10]));
    assert_eq!(refusal(&frame), OpenError::Content("a chunk on the control stream"));
    let plain = forge(|builder, args| {
        args.stream = 1;
        args.message_type = fb::SchedulerMessage::Heartbeat;
        args.message = Some(fb::Heartbeat::create(builder, &Default::default()).as_union_value());
    });
    let error = opener().open(&plain, 1, NOW_MS, STALE_AFTER_MS).unwrap_err();
    assert!(matches!(error, OpenError::Content(_)), "{error}");
}

fn update() -> fb::StatusUpdateT {
    fb::StatusUpdateT { task_id: Some("7.0.42".into()), attempt: 1, progress: 0.5, ..Default::default() }
}

fn definitions(names: &[(u16, &str)]) -> Option<Vec<fb::MetricNameT>> {
    let one = |(id, name): &(u16, &str)| fb::MetricNameT { id: *id, name: Some((*name).to_owned()) };
    Some(names.iter().map(one).collect())
}

// §stream-8 §metric-1 §metric-2
#[test]
fn metric_names_are_defined_in_order_once_and_within_their_bounds() {
    let long = "x".repeat(METRIC_NAME_BYTES_MAX + 1);
    let gap = MetricNameError::Number { found: 1, expected: 0 };
    let again = MetricNameError::Number { found: 0, expected: 1 };
    let cases = [
        (definitions(&[(1, "a")]), gap),
        (definitions(&[(0, "a"), (0, "b")]), again),
        (definitions(&[(0, "")]), MetricNameError::Length { found: 0 }),
        (definitions(&[(0, &long)]), MetricNameError::Length { found: long.len() }),
        (Some(vec![fb::MetricNameT { id: 0, name: None }]), MetricNameError::Length { found: 0 }),
    ];
    for (metric_names, expected) in cases {
        let error = refusal(&forge_status(&fb::StatusUpdateT { metric_names, ..update() }));
        assert_eq!(error, OpenError::MetricName(expected));
        assert_eq!((error.code(), error.is_fatal()), (fb::ErrorCode::Validation, true));
    }
    let texts: Vec<String> = (0..=METRIC_NAMES_MAX).map(|n| format!("m{n}")).collect();
    let many: Vec<(u16, &str)> = (0..).zip(texts.iter().map(String::as_str)).collect();
    let frame = forge_status(&fb::StatusUpdateT { metric_names: definitions(&many), ..update() });
    assert!(matches!(refusal(&frame), OpenError::MetricName(MetricNameError::Number { found: 1024, .. })));
}

// §metric-3
#[test]
fn metrics_without_name_value_or_measure_are_refused_and_the_session_goes_on() {
    let metric = |name: &str| fb::MetricT { name: Some(name.to_owned()), value: 1.0 };
    let cases = [
        fb::StatusUpdateT { metric_ids: Some(vec![0]), metric_values: Some(vec![1.0]), ..update() },
        fb::StatusUpdateT {
            metric_names: definitions(&[(0, "a")]),
            metric_ids: Some(vec![0, 0]),
            metric_values: Some(vec![1.0]),
            ..update()
        },
        fb::StatusUpdateT { metric_values: Some(vec![1.0]), ..update() },
        fb::StatusUpdateT { metrics: Some(vec![metric("a"); METRICS_MAX + 1]), ..update() },
        fb::StatusUpdateT { metrics: Some(vec![metric("")]), ..update() },
        fb::StatusUpdateT { metrics: Some(vec![fb::MetricT::default()]), ..update() },
        fb::StatusUpdateT { metrics: Some(vec![metric(&"x".repeat(METRIC_NAME_BYTES_MAX + 1))]), ..update() },
    ];
    for case in cases {
        let error = refusal(&forge_status(&case));
        assert!(matches!(error, OpenError::Metrics(_)), "{case:?}: {error}");
        assert_eq!((error.code(), error.is_fatal()), (fb::ErrorCode::Validation, false));
    }
}

// §open-11
#[test]
fn numbers_that_are_none_or_out_of_range_are_refused_and_the_session_goes_on() {
    let mut wrong: Vec<fb::StatusUpdateT> = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.001, 1.001, 1e30]
        .map(|progress| fb::StatusUpdateT { progress, ..update() })
        .into();
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let metric = fb::MetricT { name: Some("a".into()), value };
        wrong.push(fb::StatusUpdateT { metrics: Some(vec![metric]), ..update() });
        wrong.push(fb::StatusUpdateT {
            metric_names: definitions(&[(0, "a")]),
            metric_ids: Some(vec![0]),
            metric_values: Some(vec![value]),
            ..update()
        });
    }
    for case in wrong {
        let error = refusal(&forge_status(&case));
        assert!(matches!(error, OpenError::Number { .. }), "{case:?}: {error}");
        assert_eq!((error.code(), error.is_fatal()), (fb::ErrorCode::Validation, false));
    }
    for progress in [0.0, -0.0, 1.0, f32::MIN_POSITIVE] {
        open(&mut opener(), &forge_status(&fb::StatusUpdateT { progress, ..update() })).unwrap();
    }
}

// §status-1
#[test]
fn an_unknown_status_is_refused_and_the_session_goes_on() {
    for status in [-1, fb::TaskStatus::ENUM_MAX + 1, i8::MIN, i8::MAX] {
        let error = refusal(&forge_status(&fb::StatusUpdateT { status: fb::TaskStatus(status), ..update() }));
        assert_eq!(error, OpenError::Status { found: status });
        assert_eq!((error.code(), error.is_fatal()), (fb::ErrorCode::Validation, false));
    }
}

// §open-14
#[test]
fn a_refused_batch_item_is_named_and_the_others_stand() {
    let nan = fb::StatusUpdateT { progress: f32::NAN, metric_names: definitions(&[(0, "loss")]), ..update() };
    let good = fb::StatusUpdateT { metric_ids: Some(vec![0]), metric_values: Some(vec![2.0]), ..update() };
    let frame = forge(|builder, args| {
        let mut items = Vec::new();
        for update in [&good, &nan, &good] {
            // The first uses a name that nobody has defined yet.
            let message = Some(update.pack(builder).as_union_value());
            let item = fb::ItemArgs { message_type: fb::SchedulerMessage::StatusUpdate, message };
            items.push(fb::Item::create(builder, &item));
        }
        args.batch = Some(builder.create_vector(&items));
    });
    let mut opener = opener();
    let opened = open(&mut opener, &frame).unwrap();
    let refused: Vec<u16> = opened.refused().iter().map(|(item, _)| *item).collect();
    assert_eq!(refused, [0, 1]);
    assert!(matches!(opened.refused()[0].1, OpenError::Metrics(_)));
    assert!(matches!(opened.refused()[1].1, OpenError::Number { .. }));
    let stood: Vec<_> = opened.messages().collect();
    let [(2, MessageRef::StatusUpdate(status))] = stood.as_slice() else { panic!("{stood:?}") };
    assert_eq!(status.metrics().collect::<Vec<_>>(), [("loss", 2.0)]);
}

#[test]
fn a_message_of_an_unknown_type_is_passed_on_as_unknown() {
    let value = |builder: &mut Builder| fb::Heartbeat::create(builder, &Default::default()).as_union_value();
    let later = fb::SchedulerMessage(fb::SchedulerMessage::ENUM_MAX + 1);
    let single = forge(|builder, args| {
        args.message_type = later;
        args.message = Some(value(builder));
    });
    let mut opener = opener();
    let opened = open(&mut opener, &single).unwrap();
    assert!(matches!(opened.message(), Some(MessageRef::Unknown(kind)) if kind == later.0));
    let frame = batch_of(&[(later, true), (fb::SchedulerMessage(255), true)]);
    let mut opener = support::opener();
    let kinds: Vec<u8> = open(&mut opener, &frame).unwrap().messages().map(|(_, message)| message.kind().0).collect();
    assert_eq!(kinds, [later.0, 255]);
}

#[test]
fn fields_of_a_later_version_are_ignored() {
    let frame = forge(|builder, args| {
        let text = builder.create_string("from a later version");
        let table = builder.start_table();
        builder.push_slot::<u32>(fb::Heartbeat::VT_CPU, 250, 0);
        builder.push_slot_always(fb::Heartbeat::VT_ANSWER + 40, text);
        let table = builder.end_table(table);
        args.message_type = fb::SchedulerMessage::Heartbeat;
        args.message = Some(table.as_union_value());
    });
    let mut opener = opener();
    let opened = open(&mut opener, &frame).unwrap();
    assert!(matches!(opened.message(), Some(MessageRef::Heartbeat(beat)) if beat.cpu() == 250));
}

// §open-4
#[test]
fn what_a_hostile_key_holder_makes_the_verifier_do_is_bounded() {
    // Ten thousand rows that are all the same row: every one of them would be verified again, with its text.
    let frame = forge(|builder, args| {
        let text = builder.create_string(&"x".repeat(50_000));
        let row = fb::TaskSummary::create(builder, &fb::TaskSummaryArgs { note: Some(text), ..Default::default() });
        let tasks = Some(builder.create_vector(&vec![row; 10_000]));
        args.message_type = fb::SchedulerMessage::Page;
        args.message = Some(fb::Page::create(builder, &fb::PageArgs { tasks, ..Default::default() }).as_union_value());
    });
    let OpenError::Malformed { what: "envelope", error } = refusal(&frame) else { panic!("{}", refusal(&frame)) };
    assert!(error.contains("apparent size") || error.to_lowercase().contains("too large"), "{error}");
    // The same with rows that cost nothing but their number.
    let frame = forge(|builder, args| {
        let row = fb::TaskSummary::create(builder, &Default::default());
        let tasks = Some(builder.create_vector(&vec![row; 60_000]));
        args.message_type = fb::SchedulerMessage::Page;
        args.message = Some(fb::Page::create(builder, &fb::PageArgs { tasks, ..Default::default() }).as_union_value());
    });
    assert!(matches!(refusal(&frame), OpenError::Malformed { .. }), "{}", refusal(&frame));
    // Strings that are not UTF-8.
    let frame = forge(|builder, args| {
        let bytes = builder.create_vector(&[0xffu8, 0xfe, 0xfd]);
        let table = builder.start_table();
        builder.push_slot_always(fb::Deregister::VT_REASON, bytes);
        let table = builder.end_table(table);
        args.message_type = fb::SchedulerMessage::Deregister;
        args.message = Some(table.as_union_value());
    });
    assert!(matches!(refusal(&frame), OpenError::Malformed { .. }), "{}", refusal(&frame));
}
