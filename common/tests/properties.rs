//! Properties: whatever is sealed is what is opened; and whatever a key holder makes of an authentic
//! frame, opening and reading it ends without a panic and under its bounds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use fleetwire_common::{
    envelope::Features,
    fb,
    ids::{AttemptId, JobId, JobKey, TaskId},
    limits::*,
    message::{Ack, End, Heartbeat, Message, MessageRef, Status, attempt_id},
    resources::Resources,
};
use proptest::{collection::vec, prelude::*};
use std::sync::Arc;
use support::*;

fn any_attempt() -> impl Strategy<Value = AttemptId> {
    (any::<u64>(), any::<u16>(), any::<u32>(), any::<u32>())
        .prop_map(|(job, entry, index, attempt)| AttemptId { task: TaskId { job: JobId(job), entry, index }, attempt })
}

fn any_end() -> impl Strategy<Value = End> {
    (
        0..=fb::EndReason::ENUM_MAX,
        any::<i32>(),
        any::<u8>(),
        ".{0,40}",
        proptest::option::of(vec(any::<u8>(), 0..3000)),
        any::<u64>(),
    )
        .prop_map(|(reason, exit_code, signal, message, result, n)| End {
            reason: fb::EndReason(reason),
            exit_code,
            signal,
            message,
            result,
            user_us: n,
            system_us: n.rotate_left(9),
            memory_peak_kb: n.rotate_left(18),
            wall_us: n.rotate_left(27),
            stdout_bytes: n.rotate_left(36),
            stderr_bytes: n.rotate_left(45),
            started_at_ms: n.rotate_left(54),
            ended_at_ms: n.rotate_left(63),
        })
}

fn any_status() -> impl Strategy<Value = Status> {
    // Few names, so that they repeat, in any order.
    let metric = ("[a-e]{1,3}", -1e9..1e9f64).prop_map(|(name, value)| (Arc::<str>::from(name), value));
    (
        any_attempt(),
        0..=fb::TaskStatus::ENUM_MAX,
        0.0..=1.0f32,
        ".{0,60}",
        vec(metric, 0..20),
        proptest::option::of(any_end().prop_map(Box::new)),
        any::<u64>().prop_map(JobKey),
    )
        .prop_map(|(attempt, status, progress, note, metrics, end, job_key)| Status {
            attempt,
            status: fb::TaskStatus(status),
            progress,
            note,
            metrics,
            end,
            job_key,
        })
}

#[derive(Clone, Debug)]
enum Sent {
    Status(Status),
    Beat(Heartbeat),
    Acceptance(AttemptId),
    Final(AttemptId),
    Log(Vec<u8>),
}

fn any_sent() -> impl Strategy<Value = Sent> {
    prop_oneof![
        4 => any_status().prop_map(Sent::Status),
        1 => any::<[u32; 4]>().prop_map(|[cpu, memory, gpu, storage]| Sent::Beat(Heartbeat {
            usage: Resources { cpu, memory, gpu, storage },
            running: cpu ^ gpu,
            answer: memory % 2 == 0,
        })),
        1 => any_attempt().prop_map(Sent::Acceptance),
        1 => any_attempt().prop_map(Sent::Final),
        1 => vec(any::<u8>(), 0..5000).prop_map(Sent::Log),
    ]
}

fn message(sent: &Sent) -> Message {
    match sent {
        Sent::Status(status) => Message::Status(status.clone()),
        Sent::Beat(beat) => Message::Heartbeat(*beat),
        Sent::Acceptance(id) => Message::Acceptance(*id),
        Sent::Final(id) => Message::Ack(Ack::Final(*id)),
        Sent::Log(data) => log_chunk(data.clone()),
    }
}

/// What was read of a message, in the terms of what was sent.
fn read(message: MessageRef<'_>) -> Sent {
    match message {
        MessageRef::StatusUpdate(status) => {
            let update = status.update;
            Sent::Status(Status {
                attempt: attempt_id(update.task_id(), update.attempt()).unwrap(),
                status: update.status(),
                progress: update.progress(),
                note: update.note().unwrap_or_default().to_owned(),
                metrics: status.metrics().map(|(name, value)| (Arc::from(name), value)).collect(),
                end: update.end().map(|end| Box::new(End::from_wire(end))),
                job_key: JobKey(update.job_key()),
            })
        }
        MessageRef::Heartbeat(beat) => Sent::Beat(Heartbeat {
            usage: Resources { cpu: beat.cpu(), memory: beat.memory(), gpu: beat.gpu(), storage: beat.storage() },
            running: beat.running(),
            answer: beat.answer(),
        }),
        MessageRef::TaskAcceptance(acceptance) => {
            Sent::Acceptance(attempt_id(acceptance.task_id(), acceptance.attempt()).unwrap())
        }
        MessageRef::Ack(ack) => Sent::Final(attempt_id(ack.task_id(), ack.attempt()).unwrap()),
        MessageRef::LogChunk(chunk) => Sent::Log(chunk.data().map(|data| data.bytes().to_vec()).unwrap_or_default()),
        other => panic!("{other:?}"),
    }
}

/// Debug output reads every field of every table.
fn read_everything(frame: &[u8], opener: &mut fleetwire_common::envelope::Opener, stream: u32) -> usize {
    match opener.open(frame, stream, NOW_MS, STALE_AFTER_MS) {
        Ok(opened) => {
            let metrics = opened.messages().filter_map(|(_, message)| match message {
                MessageRef::StatusUpdate(status) => Some(status.metrics().count()),
                _ => None,
            });
            let metrics: usize = metrics.sum();
            opened.messages().map(|(_, message)| format!("{message:?}").len()).sum::<usize>() + metrics
        }
        Err(error) => error.to_string().len() + usize::from(error.code().0),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_sealed_is_what_is_opened(sent in vec(any_sent(), 1..40), interned: bool, packed: bool, batch: bool) {
        let mut features = Features::EXTENDED_STATUS;
        for (feature, on) in
            [(Features::INTERNED_METRICS, interned), (Features::PACKED, packed), (Features::BATCH, batch)]
        {
            features.0 |= if on { feature.0 } else { 0 };
        }
        let messages: Vec<Message> = sent.iter().map(message).collect();
        let (mut sealer, mut opener) = (sealer(features), opener());
        let mut found = Vec::new();
        let mut rest = messages.as_slice();
        while !rest.is_empty() {
            let mut frame = Vec::new();
            let taken = sealer.seal(NOW_MS, rest, &mut frame);
            prop_assert!(taken > 0 && (batch || taken == 1));
            rest = &rest[taken..];
            let opened = open(&mut opener, &frame).unwrap();
            prop_assert!(opened.refused().is_empty());
            found.extend(opened.messages().map(|(_, message)| read(message)));
        }
        prop_assert_eq!(format!("{found:?}"), format!("{sent:?}"));
    }

    #[test]
    fn bodies_in_pieces_come_out_as_they_went_in(data in vec(any::<u8>(), 0..400_000), zeros in 0..400_000usize, packed: bool) {
        let features = if packed { Features::ALL } else { Features::NONE };
        let data = [data, vec![0; zeros]].concat();
        let mut out = Vec::new();
        sealer(features).seal_bulk(NOW_MS, 1, &log_chunk(data.clone()), &mut out).unwrap();
        let mut opener = opener();
        let mut found = None;
        for frame in frames(&out) {
            let opened = opener.open(frame, 1, NOW_MS, STALE_AFTER_MS).unwrap();
            prop_assert!(found.is_none());
            found = opened.message().map(read);
        }
        let Some(Sent::Log(found)) = found else { panic!("no body") };
        prop_assert!(found == data);
    }

    /// A hostile key holder changes anything and signs it rightly.
    #[test]
    fn changed_frames_with_a_right_signature_never_panic(
        sent in vec(any_sent(), 1..6),
        packed: bool,
        bulk: bool,
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let features = if packed { Features::ALL } else { Features(Features::ALL.0 & !Features::PACKED.0) };
        let messages: Vec<Message> = sent.iter().map(message).collect();
        let mut out = Vec::new();
        if bulk {
            sealer(features).seal_bulk(NOW_MS, 1, &messages[0], &mut out).unwrap();
        } else {
            sealer(features).seal(NOW_MS, &messages, &mut out);
        }
        let mut frame = frames(&out)[0].to_vec();
        for (place, value) in changes {
            let place = place.index(frame.len() - 36);
            frame[place] = value;
        }
        if let Some(cut) = cut {
            let cut = cut.index(frame.len() - 36) & !3;
            frame.drain(4..4 + cut.min(frame.len() - 44));
        }
        sign_again(&mut frame);
        let mut opener = opener();
        read_everything(&frame, &mut opener, u32::from(bulk));
        // The session can go on, or says that it cannot; either way it stands.
        read_everything(&frame, &mut opener, 0);
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in vec(any::<u8>(), 0..2_000)) {
        read_everything(&bytes, &mut opener(), 0);
        if bytes.len() >= 44 {
            let place = bytes.len() - 36;
            bytes[place..place + 4].copy_from_slice(&KEY_ID.to_le_bytes());
            sign_again(&mut bytes);
            read_everything(&bytes, &mut opener(), 0);
        }
    }
}
