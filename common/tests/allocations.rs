//! Sealing and opening allocate nothing in the steady state: counted by the allocator itself, for each
//! message and for both directions. A bomb is refused without an allocation too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use fleetwire_common::{
    envelope::{CONTROL_STREAM, Features, Opener, Sealer},
    fb,
    limits::*,
    message::{Ack, End, Message, MessageRef, Status},
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    hint::black_box,
};
use support::*;

struct Counting;

thread_local! {
    /// Allocations of this thread: tests run beside each other.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator is an unsafe trait")]
// SAFETY: every call goes to the system's allocator unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(work: impl FnOnce()) -> u64 {
    let before = COUNT.get();
    work();
    COUNT.get() - before
}

/// Reads what a receiver would act on.
fn read(message: MessageRef<'_>) -> f64 {
    match message {
        MessageRef::StatusUpdate(status) => status.metrics().map(|(name, value)| name.len() as f64 + value).sum(),
        MessageRef::TaskAssignment(task) => task.parameters().map_or(0.0, |text| text.len() as f64),
        MessageRef::Heartbeat(beat) => f64::from(beat.cpu()),
        other => f64::from(other.kind().0),
    }
}

/// Seals and opens the same messages again and again; returns the allocations of sealing and of opening,
/// once everything has grown to its size.
fn steady_state(features: Features, messages: &[Message]) -> (u64, u64) {
    steady_state_up_to(FRAME_BYTES_MAX, features, messages)
}

fn steady_state_up_to(frame_bytes_max: usize, features: Features, messages: &[Message]) -> (u64, u64) {
    let mut sealer: Sealer = sealer(features).with_frame_bytes_max(frame_bytes_max);
    let mut opener: Opener = opener().with_frame_bytes_max(frame_bytes_max);
    let mut frame = Vec::new();
    let (mut sealing, mut opening) = (0, 0);
    for round in 0..30 {
        frame.clear();
        let sealed = count(|| assert_eq!(sealer.seal(NOW_MS, messages, &mut frame), messages.len()));
        let opened = count(|| {
            let opened = opener.open(&frame, CONTROL_STREAM, NOW_MS, STALE_AFTER_MS).unwrap();
            let mut seen = 0;
            for (_, message) in opened.messages() {
                black_box(read(message));
                seen += 1;
            }
            assert_eq!(seen, messages.len());
        });
        if round >= 10 {
            sealing += sealed;
            opening += opened;
        }
    }
    (sealing, opening)
}

const WITHOUT_LZ4: Features = Features(Features::ALL.0 & !Features::PACKED.0);

#[test]
fn a_heartbeat() {
    for features in [Features::ALL, Features::NONE] {
        assert_eq!(steady_state(features, &[heartbeat()]), (0, 0));
    }
}

#[test]
fn a_status_update_with_16_metrics() {
    for features in [Features::ALL, WITHOUT_LZ4, Features::NONE] {
        assert_eq!(steady_state(features, &[status(16)]), (0, 0));
    }
}

#[test]
fn a_status_update_with_every_metric_that_there_may_be() {
    for features in [Features::ALL, WITHOUT_LZ4, Features::NONE] {
        assert_eq!(steady_state(features, &[status(METRICS_MAX)]), (0, 0));
    }
}

/// As many messages as one frame takes, of 256 bytes to 1 MB, as another transport than a session would carry them.
#[test]
fn a_body_of_every_size_that_is_measured() {
    for bytes in [256, 1 << 10, 10 << 10, 100 << 10, 1 << 20] {
        for features in [Features::ALL, WITHOUT_LZ4, Features::NONE] {
            let counted = steady_state_up_to(FRAME_BYTES_CODEC_MAX, features, &[assignment(bytes)]);
            assert_eq!(counted, (0, 0), "{bytes} bytes of text");
        }
        // Batches end at 48 KB, so more metrics than that are frames of this size.
        let updates = (bytes / 640).clamp(1, 48);
        let messages = vec![status((bytes / 10).min(METRICS_MAX)); updates];
        for features in [Features::ALL, WITHOUT_LZ4] {
            assert_eq!(steady_state(features, &messages), (0, 0), "{bytes} bytes of metrics");
        }
    }
}

#[test]
fn an_assignment_of_64_kb() {
    for features in [Features::ALL, WITHOUT_LZ4, Features::NONE] {
        assert_eq!(steady_state(features, &[assignment(64 << 10)]), (0, 0));
    }
}

#[test]
fn a_final_status_with_a_result_that_does_not_compress() {
    let end = Some(Box::new(End { result: Some(noise(RESULT_BYTES_MAX)), ..End::default() }));
    let message = Message::Status(Status { end, status: fb::TaskStatus::Completed, ..plain_status() });
    for features in [Features::ALL, Features::NONE] {
        assert_eq!(steady_state(features, std::slice::from_ref(&message)), (0, 0));
    }
}

#[test]
fn a_log_chunk() {
    for message in [log_chunk(noise(60_000)), log_chunk(json_text(60_000).into_bytes())] {
        for features in [Features::ALL, Features::NONE] {
            assert_eq!(steady_state(features, std::slice::from_ref(&message)), (0, 0));
        }
    }
}

#[test]
fn a_batch_of_many_kinds() {
    let mut messages = Vec::new();
    for n in 0..100 {
        messages.push(heartbeat());
        messages.push(status(n % 17));
        messages.push(Message::Ack(Ack::Final(attempt())));
        messages.push(Message::Acceptance(attempt()));
        messages.push(Message::Cancellation(attempt(), fb::EndReason::Cancelled));
    }
    for features in [Features::ALL, WITHOUT_LZ4] {
        assert_eq!(steady_state(features, &messages), (0, 0));
    }
}

#[test]
fn a_bomb_is_refused_without_an_allocation() {
    let honest = lz4_flex::block::compress(&vec![0; 4 << 20]);
    for raw_len in [BODY_BYTES_MAX as u32 + 1, u32::MAX, 255 * honest.len() as u32 + 65] {
        let frame = forge_packed(fb::Compression::Lz4Block, raw_len, &honest);
        let mut opener = opener();
        let allocations = count(|| {
            open(&mut opener, &frame).map(|_| ()).unwrap_err();
        });
        assert_eq!(allocations, 0, "{raw_len}");
    }
}

#[test]
fn a_forged_frame_is_refused_without_an_allocation() {
    let mut frame = sealed(&assignment(64 << 10), Features::ALL);
    frame[100] ^= 1;
    let mut opener = opener();
    let allocations = count(|| {
        open(&mut opener, &frame).map(|_| ()).unwrap_err();
    });
    assert_eq!(allocations, 0);
}
