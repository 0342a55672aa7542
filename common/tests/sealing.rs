//! Sealing: what goes into a frame, when it is compressed, and what a peer reads that knows less.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use fleetwire_common::{
    envelope::{Features, OpenError, SealError},
    fb,
    limits::*,
    message::{Ack, End, Message, MessageRef, Status},
};
use std::sync::Arc;
use support::*;

fn table(frame: &[u8]) -> fb::MessageEnvelope<'_> {
    open(&mut opener(), frame).unwrap();
    flatbuffers::size_prefixed_root::<fb::MessageEnvelope<'_>>(frame).unwrap()
}

// §lz4-1
#[test]
fn a_body_is_packed_from_the_threshold_on_and_only_for_peers_that_know() {
    let small = sealed(&assignment(700), Features::ALL);
    assert!(table(&small).packed().is_none(), "{}", small.len());
    let large = sealed(&assignment(20_000), Features::ALL);
    assert!(table(&large).packed().is_some());
    assert!(large.len() < 10_000, "{}", large.len());
    let without = Features(Features::ALL.0 & !Features::PACKED.0);
    let plain = sealed(&assignment(20_000), without);
    assert!(table(&plain).packed().is_none());
    for frame in [large, plain] {
        let mut opener = opener();
        let opened = open(&mut opener, &frame).unwrap();
        let Some(MessageRef::TaskAssignment(read)) = opened.message() else { panic!("{opened:?}") };
        assert_eq!(read.parameters(), Some(json_text(20_000).as_str()));
    }
}

#[test]
fn a_body_that_does_not_shrink_to_seven_eighths_is_sent_as_it_is() {
    let frame = sealed(&log_chunk(noise(50_000)), Features::ALL);
    assert!(table(&frame).packed().is_none());
    // Zeros in front make it shrink: not enough the first time, enough the second.
    for (zeros, packed) in [(4_000, false), (9_000, true)] {
        let mut data = vec![0; zeros];
        data.extend(noise(50_000));
        let frame = sealed(&log_chunk(data), Features::ALL);
        assert_eq!(table(&frame).packed().is_some(), packed, "{zeros}");
    }
}

#[test]
fn rare_messages_that_turn_out_large_are_packed_too() {
    let row = fb::JobSummaryT { name: Some("a job among many".into()), ..Default::default() };
    let page = fb::PageT { jobs: Some(vec![row; 200]), ..Default::default() };
    let message = Message::Rare(fb::SchedulerMessageT::Page(Box::new(page)));
    let frame = sealed(&message, Features::ALL);
    assert!(table(&frame).packed().is_some());
    assert!(frame.len() * 3 < sealed(&message, Features::NONE).len());
    let mut opener = opener();
    let opened = open(&mut opener, &frame).unwrap();
    let Some(MessageRef::Page(page)) = opened.message() else { panic!("{opened:?}") };
    assert_eq!(page.jobs().unwrap().len(), 200);
}

#[test]
fn a_batch_is_one_frame_packed_when_that_pays_and_opened_in_order() {
    let acks: Vec<Message> = (0..300).map(|n| Message::Ack(Ack::Request(n))).collect();
    let mut frame = Vec::new();
    assert_eq!(sealer(Features::ALL).seal(NOW_MS, &acks, &mut frame), 300);
    assert_eq!(frames(&frame).len(), 1);
    assert!(table(&frame).packed().is_some());
    let mut opener = opener();
    let opened = open(&mut opener, &frame).unwrap();
    let read: Vec<(u16, u64)> = opened
        .messages()
        .map(|(item, message)| match message {
            MessageRef::Ack(ack) => (item, ack.request()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(read, (0..300).map(|n| (n as u16, n)).collect::<Vec<_>>());
}

// §envelope-4 §session-5
#[test]
fn a_peer_without_batches_gets_one_message_a_frame() {
    let messages = [heartbeat(), heartbeat()];
    let mut frame = Vec::new();
    assert_eq!(sealer(Features::NONE).seal(NOW_MS, &messages, &mut frame), 1);
}

#[test]
fn a_batch_is_closed_by_its_bytes_and_by_its_items() {
    let mut out = Vec::new();
    let many: Vec<Message> = (0..2 * BATCH_ITEMS_MAX as u64).map(|n| Message::Ack(Ack::Request(n))).collect();
    let mut sealer = sealer(Features::ALL);
    assert_eq!(sealer.seal(NOW_MS, &many, &mut out), BATCH_ITEMS_MAX);
    let large: Vec<Message> = (0..10).map(|_| log_chunk(noise(20 << 10))).collect();
    assert_eq!(sealer.seal(NOW_MS, &large, &mut out), 2);
}

#[test]
fn a_message_too_large_for_a_frame_is_given_back_and_costs_no_name_and_no_sequence() {
    let mut sealer = sealer(Features::ALL);
    let mut out = Vec::new();
    let Message::Status(small) = status(3) else { panic!() };
    let result = Some(noise(FRAME_BYTES_MAX));
    let end = Some(Box::new(End { result, ..End::default() }));
    let huge = Message::Status(Status { end, status: fb::TaskStatus::Completed, ..small.clone() });
    assert_eq!(sealer.seal(NOW_MS, &[huge.clone(), heartbeat()], &mut out), 0);
    assert!(out.is_empty());
    // Behind another it waits for its turn, and that other is sent.
    assert_eq!(sealer.seal(NOW_MS, &[heartbeat(), huge], &mut out), 1);
    assert_eq!(sealer.seal(NOW_MS, &[Message::Status(small)], &mut out), 1);
    let mut opener = opener();
    let frames = frames(&out);
    open(&mut opener, frames[0]).unwrap();
    let opened = open(&mut opener, frames[1]).unwrap();
    let Some(MessageRef::StatusUpdate(read)) = opened.message() else { panic!("{opened:?}") };
    assert_eq!(read.metrics().count(), 3);
}

#[test]
fn metric_names_travel_once_a_session() {
    let mut sealer = sealer(Features::ALL);
    let mut opener = opener();
    let mut sizes = Vec::new();
    for _ in 0..3 {
        let mut frame = Vec::new();
        sealer.seal(NOW_MS, &[status(16)], &mut frame);
        sizes.push(frame.len());
        let opened = open(&mut opener, &frame).unwrap();
        let Some(MessageRef::StatusUpdate(read)) = opened.message() else { panic!("{opened:?}") };
        let expected: Vec<(String, f64)> =
            metrics(16).into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        let found: Vec<(String, f64)> = read.metrics().map(|(name, value)| (name.to_owned(), value)).collect();
        assert_eq!(found, expected);
    }
    assert!(sizes[1] * 2 < sizes[0] && sizes[1] == sizes[2], "{sizes:?}");
}

// Numbers that follow each other are read faster: one update without them must slow the others down, not the reverse.
#[test]
fn a_batch_of_updates_with_the_same_metrics_in_another_order_is_read_by_name() {
    let sealed_metrics = |metrics| Message::Status(Status { metrics, ..plain_status() });
    let (in_order, mut reversed) = (metrics(16), metrics(16));
    reversed.reverse();
    let (mut sealer, mut opener) = (sealer(Features::ALL), opener());
    for orders in [[&in_order, &in_order], [&in_order, &reversed], [&reversed, &in_order], [&in_order, &in_order]] {
        let mut frame = Vec::new();
        sealer.seal(NOW_MS, &orders.map(|order| sealed_metrics(order.clone())), &mut frame);
        let opened = open(&mut opener, &frame).unwrap();
        for ((_, message), order) in opened.messages().zip(orders) {
            let MessageRef::StatusUpdate(read) = message else { panic!("{message:?}") };
            let expected: Vec<(&str, f64)> = order.iter().map(|(name, value)| (&**name, *value)).collect();
            assert_eq!(read.metrics().collect::<Vec<_>>(), expected);
        }
        assert_eq!(opened.messages().count(), 2);
    }
}

#[test]
fn names_beyond_the_bound_are_sent_as_text() {
    let mut sealer = sealer(Features::ALL);
    let mut opener = opener();
    let names: Vec<(Arc<str>, f64)> =
        (0..METRIC_NAMES_MAX + 40).map(|n| (Arc::from(format!("m{n}")), n as f64)).collect();
    for metrics in names.chunks(METRICS_MAX).chain(names.chunks(METRICS_MAX)) {
        let message = Message::Status(Status { metrics: metrics.to_vec(), ..plain_status() });
        let mut frame = Vec::new();
        sealer.seal(NOW_MS, &[message], &mut frame);
        let opened = open(&mut opener, &frame).unwrap();
        let Some(MessageRef::StatusUpdate(read)) = opened.message() else { panic!("{opened:?}") };
        let mut found: Vec<(Arc<str>, f64)> = read.metrics().map(|(name, value)| (Arc::from(name), value)).collect();
        found.sort_by(|a, b| a.1.total_cmp(&b.1));
        assert_eq!(found, metrics);
    }
}

// §seal-5
#[test]
fn what_a_peer_would_refuse_is_not_written() {
    for features in [Features::ALL, Features::NONE] {
        let mut bad: Vec<(Arc<str>, f64)> = vec![
            (Arc::from("nan"), f64::NAN),
            (Arc::from("inf"), f64::INFINITY),
            (Arc::from(""), 1.0),
            (Arc::from("x".repeat(METRIC_NAME_BYTES_MAX + 1)), 1.0),
        ];
        bad.extend(metrics(METRICS_MAX + 5));
        for (progress, expected) in [(f32::NAN, 0.0), (7.0, 1.0), (-1.0, 0.0), (0.25, 0.25)] {
            let message = Message::Status(Status { progress, metrics: bad.clone(), ..plain_status() });
            let frame = sealed(&message, features);
            let mut opener = opener();
            let opened = open(&mut opener, &frame).unwrap();
            let Some(MessageRef::StatusUpdate(read)) = opened.message() else { panic!("{opened:?}") };
            assert_eq!((read.update.progress(), read.metrics().count()), (expected, METRICS_MAX));
        }
    }
}

#[test]
fn an_empty_union_is_sent_as_a_nack() {
    let frame = sealed(&Message::Rare(fb::SchedulerMessageT::NONE), Features::ALL);
    let mut opener = opener();
    let opened = open(&mut opener, &frame).unwrap();
    assert!(matches!(opened.message(), Some(MessageRef::Nack(nack)) if nack.code() == fb::ErrorCode::Internal));
}

// §stream-7
#[test]
fn bodies_of_any_size_go_in_pieces_packed_when_that_pays() {
    let text = json_text(900_000).into_bytes();
    for (features, data, pieces) in [
        (Features::ALL, text.clone(), 1..5),
        (Features::NONE, text, 7..8),
        (Features::ALL, noise(900_000), 7..8),
        (Features::ALL, vec![1, 2, 3], 1..2),
    ] {
        let mut out = Vec::new();
        sealer(features).seal_bulk(NOW_MS, 1, &log_chunk(data.clone()), &mut out).unwrap();
        let frames = frames(&out);
        assert!(pieces.contains(&frames.len()), "{}", frames.len());
        let mut opener = opener();
        let (last, before) = frames.split_last().unwrap();
        for frame in before {
            assert!(frame.len() <= FRAME_BYTES_MAX);
            let opened = opener.open(frame, 1, NOW_MS, STALE_AFTER_MS).unwrap();
            assert_eq!(opened.messages().count(), 0);
        }
        let opened = opener.open(last, 1, NOW_MS, STALE_AFTER_MS).unwrap();
        let Some(MessageRef::LogChunk(read)) = opened.message() else { panic!("{opened:?}") };
        assert!(read.data().unwrap().bytes() == data);
    }
}

#[test]
fn a_body_beyond_the_cap_is_refused_where_it_is_sealed() {
    let mut out = Vec::new();
    let error = sealer(Features::ALL).seal_bulk(NOW_MS, 1, &log_chunk(vec![0; BODY_BYTES_MAX]), &mut out).unwrap_err();
    assert!(matches!(error, SealError::TooLarge { found } if found > BODY_BYTES_MAX));
    assert!(out.is_empty());
}

#[test]
fn a_transport_that_takes_more_gets_larger_frames() {
    let mut sealer = sealer(Features::NONE).with_frame_bytes_max(FRAME_BYTES_CODEC_MAX);
    let mut frame = Vec::new();
    assert_eq!(sealer.seal(NOW_MS, &[log_chunk(noise(1 << 20))], &mut frame), 1);
    assert!(matches!(refusal(&frame), OpenError::TooLong { .. }));
    open(&mut opener().with_frame_bytes_max(FRAME_BYTES_CODEC_MAX), &frame).unwrap();
}

// §seal-2
#[test]
fn frames_follow_each_other_in_one_buffer() {
    let mut sealer = sealer(Features::ALL);
    let mut out = Vec::new();
    for _ in 0..3 {
        sealer.seal(NOW_MS, &[status(4)], &mut out);
    }
    let mut opener = opener();
    for (sequence, frame) in (0..).zip(frames(&out)) {
        assert_eq!(open(&mut opener, frame).unwrap().sequence, sequence);
    }
}

#[test]
fn an_idle_heartbeat_is_small() {
    let frame = sealed(&heartbeat(), Features::ALL);
    assert!(frame.len() <= 192, "{}", frame.len());
}
