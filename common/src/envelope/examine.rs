//! A frame looked at as a tool does: every rule that it breaks, not only the first (docs/protocol.md#opening).
//!
//! [`super::Opener`] stops at the first broken rule, as whoever receives frames must. An [`Examiner`] goes on as far as the
//! frame can be read, also without its key, and says which requirement each fault breaks. What `open` takes, it finds nothing
//! wrong with; what `open` refuses, it finds the same fault among others: tests hold the two against each other.

use super::{
    CONTROL_STREAM, OpenError, SIGNATURE_BYTES, VERSION,
    bulk::Bulk,
    keys::{MacKey, TAG_BYTES},
    open::{verify_body, verify_envelope},
    pack::{check_packed, unpack},
};
use crate::{fb, limits::*, message::MetricNames};

/// One broken rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// The requirement's number in docs/protocol.md, such as `open-5`.
    pub requirement: &'static str,
    /// The batch item, where one breaks it.
    pub item: Option<u16>,
    /// What is wrong.
    pub error: OpenError,
}

/// What is known of one frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Examined {
    /// Every rule that it breaks, in the order in which a receiver would look.
    pub violations: Vec<Violation>,
    /// Whether the tag is right; `None` without a key.
    pub is_authentic: Option<bool>,
    /// Whether it is a well-formed envelope: the rest could be looked at.
    pub is_readable: bool,
    /// The decompressed or assembled body, if that is well-formed: a FlatBuffer whose root is `Body`.
    pub body: Option<Vec<u8>>,
}

/// Looks at the frames of one direction of one session.
#[derive(Debug, Default)]
pub struct Examiner {
    knowledge: Knowledge,
    sequence: Option<u64>,
    names: MetricNames,
    bulk: Bulk,
}

/// What a tool knows about the session that frames are of.
#[derive(Clone, Debug, Default)]
pub struct Knowledge {
    /// The key and its id; `None`: signatures are not judged.
    pub key: Option<(MacKey, u32)>,
    /// Cluster time at which frames arrive, ms; `None`: freshness is not judged.
    pub arrived_ms: Option<u64>,
    /// Whether the first frame is its session's first: then sequences begin at 0 and every metric name is defined.
    pub is_whole: bool,
}

impl Examiner {
    /// For frames in the order in which they were sent.
    pub fn new(knowledge: Knowledge) -> Examiner {
        Examiner { knowledge, ..Examiner::default() }
    }

    /// Looks at a whole frame that came on `stream`; `None`: on the one that it says.
    pub fn examine(&mut self, frame: &[u8], stream: Option<u32>) -> Examined {
        let mut found = Findings { item: None, examined: Examined::default() };
        self.examine_frame(frame, &mut found);
        if frame.len() < SIGNATURE_BYTES + 8 {
            return found.examined;
        }
        match verify_envelope(frame) {
            Ok(envelope) => {
                found.examined.is_readable = true;
                self.examine_envelope(frame, &envelope, stream, &mut found);
            }
            Err(error) => found.add("open-4", error),
        }
        found.examined
    }

    fn examine_frame(&self, frame: &[u8], found: &mut Findings) {
        if frame.len() > FRAME_BYTES_MAX {
            found.add("envelope-5", OpenError::TooLong { found: frame.len(), max: FRAME_BYTES_MAX });
        }
        let Some((prefix, rest)) = frame.split_first_chunk::<4>().filter(|_| frame.len() >= SIGNATURE_BYTES + 8) else {
            return found.add("open-1", OpenError::TooShort { found: frame.len() });
        };
        let prefix = u32::from_le_bytes(*prefix) as usize;
        if prefix != rest.len() {
            found.add("open-1", OpenError::Length { prefix, found: rest.len() });
        }
        let (signed, tag) = frame.split_at(frame.len() - TAG_BYTES);
        let id = signed.last_chunk::<4>().map_or(0, |id| u32::from_le_bytes(*id));
        if let Some((key, expected)) = &self.knowledge.key {
            if id != *expected {
                found.add("open-2", OpenError::KeyId { found: id, expected: *expected });
            }
            let is_right = key.verify(signed, tag);
            found.examined.is_authentic = Some(is_right);
            if !is_right {
                found.add("open-3", OpenError::Signature);
            }
        }
    }

    fn examine_envelope(
        &mut self,
        frame: &[u8],
        envelope: &fb::MessageEnvelope<'_>,
        stream: Option<u32>,
        found: &mut Findings,
    ) {
        let tail = frame.last_chunk::<SIGNATURE_BYTES>().map(|tail| tail.as_ptr_range());
        if envelope.signature().map(|field| field.bytes().as_ptr_range()) != tail {
            found.add("open-5", OpenError::SignaturePlace);
        }
        if envelope.version() != VERSION {
            found.add("open-6", OpenError::Version { found: envelope.version() });
        }
        let expected = stream.unwrap_or(envelope.stream());
        if envelope.stream() != expected {
            found.add("open-7", OpenError::Stream { found: envelope.stream(), expected });
        }
        let stream = expected;
        let is_next = self.examine_sequence(stream, envelope.sequence(), found);
        if let Some(arrived_ms) = self.knowledge.arrived_ms.filter(|_| stream == CONTROL_STREAM) {
            let (timestamp_ms, tolerance_ms) = (envelope.timestamp(), STALE_AFTER_MS);
            if timestamp_ms.abs_diff(arrived_ms) > tolerance_ms {
                found.add("fresh-1", OpenError::Stale { timestamp_ms, arrived_ms, tolerance_ms });
            }
        }
        let has_message = envelope.message_type() != fb::SchedulerMessage::NONE;
        let parts = [has_message, envelope.packed().is_some(), envelope.batch().is_some()];
        if parts.into_iter().filter(|part| *part).count() != 1 {
            found.add("envelope-1", OpenError::Content("expected exactly one of message, packed and batch"));
        }
        let chunk = envelope.message_as_chunk();
        if stream != CONTROL_STREAM && chunk.is_none() {
            found.add("stream-3", OpenError::Content("something else than a chunk on a bulk stream"));
        }
        if let Some(chunk) = chunk {
            if stream == CONTROL_STREAM {
                found.add("stream-3", OpenError::Content("a chunk on the control stream"));
            } else if is_next {
                self.examine_chunk(stream, chunk, found);
            }
        }
        if let Some(packed) = envelope.packed() {
            let data = packed.data().map(|data| data.bytes()).unwrap_or_default();
            self.examine_packed(stream, packed.compression(), data, packed.raw_len(), found);
        }
        if let Some(update) = envelope.message_as_status_update() {
            self.examine_update(stream, update, found);
        }
        self.examine_batch(stream, envelope.batch(), found);
    }

    /// Whether it is the stream's next, so that what it carries continues what came before.
    fn examine_sequence(&mut self, stream: u32, sequence: u64, found: &mut Findings) -> bool {
        if stream != CONTROL_STREAM {
            return match self.bulk.on_frame(stream, sequence) {
                Ok(()) => true,
                Err(error) => {
                    let requirement = match error {
                        OpenError::StreamEnded { .. } => "stream-2",
                        OpenError::BulkStreams => "stream-1",
                        _ => "open-7",
                    };
                    found.add(requirement, error);
                    false
                }
            };
        }
        let expected = self.sequence.unwrap_or(if self.knowledge.is_whole { 0 } else { sequence });
        self.sequence = Some(sequence.saturating_add(1));
        if sequence != expected {
            found.add("open-7", OpenError::Sequence { stream, found: sequence, expected });
        }
        sequence == expected
    }

    fn examine_chunk(&mut self, stream: u32, chunk: fb::Chunk<'_>, found: &mut Findings) {
        match self.bulk.on_chunk(stream, chunk) {
            Ok(None) => {}
            Ok(Some(whole)) if whole.compression == fb::Compression::None => {
                self.examine_body(stream, whole.bytes, found);
            }
            Ok(Some(whole)) => self.examine_packed(stream, whole.compression, &whole.bytes, whole.raw_len, found),
            Err(error) => {
                let requirement = match error {
                    OpenError::Chunk { .. } => "stream-4",
                    OpenError::TooLong { .. } => "stream-5",
                    _ => "lz4-2",
                };
                found.add(requirement, error);
            }
        }
    }

    fn examine_packed(
        &mut self,
        stream: u32,
        compression: fb::Compression,
        data: &[u8],
        raw_len: u32,
        found: &mut Findings,
    ) {
        if let Err(error) = check_packed(compression, data.len(), raw_len) {
            return found.add("lz4-2", error);
        }
        let mut raw = Vec::new();
        match unpack(data, raw_len, &mut raw).map(|_| ()) {
            Ok(()) => self.examine_body(stream, raw, found),
            Err(error) => found.add("lz4-3", error),
        }
    }

    fn examine_body(&mut self, stream: u32, bytes: Vec<u8>, found: &mut Findings) {
        match verify_body(&bytes) {
            Ok(body) => {
                let has_message = body.message_type() != fb::SchedulerMessage::NONE;
                if has_message == body.batch().is_some() {
                    found.add("envelope-1", OpenError::Content("expected exactly one of message and batch in a body"));
                }
                if body.message_type() == fb::SchedulerMessage::Chunk {
                    found.add("stream-3", OpenError::Content("a chunk inside a body"));
                }
                if let Some(update) = body.message_as_status_update() {
                    self.examine_update(stream, update, found);
                }
                self.examine_batch(stream, body.batch(), found);
                found.examined.body = Some(bytes);
            }
            Err(error) => found.add("stream-7", error),
        }
    }

    fn examine_batch(&mut self, stream: u32, batch: Option<Batch<'_>>, found: &mut Findings) {
        let Some(batch) = batch else { return };
        if batch.is_empty() || batch.len() > BATCH_ITEMS_MAX {
            found.add("envelope-2", OpenError::Content("a batch that is empty or too long"));
        }
        for (number, item) in (0..).zip(batch.iter().take(BATCH_ITEMS_MAX)) {
            found.item = Some(number);
            match item.message_type() {
                fb::SchedulerMessage::NONE => {
                    found.add("envelope-2", OpenError::Content("a batch item without a message"));
                }
                fb::SchedulerMessage::Chunk => found.add("stream-3", OpenError::Content("a chunk inside a batch")),
                _ => {}
            }
            if let Some(update) = item.message_as_status_update() {
                self.examine_update(stream, update, found);
            }
        }
        found.item = None;
    }

    fn examine_update(&mut self, stream: u32, update: fb::StatusUpdate<'_>, found: &mut Findings) {
        for definition in update.metric_names().into_iter().flatten() {
            if stream != CONTROL_STREAM {
                found.add("stream-8", OpenError::Content("metric names defined on a bulk stream"));
            }
            let defined = self.names.define(definition.id(), definition.name().unwrap_or_default());
            if let Err(error) = defined.map_err(OpenError::from) {
                let is_excerpt = !self.knowledge.is_whole && definition.id() != 0;
                if !is_excerpt {
                    found.add("metric-2", error);
                }
            }
        }
        let status = update.status();
        if !(fb::TaskStatus::ENUM_MIN..=fb::TaskStatus::ENUM_MAX).contains(&status.0) {
            found.add("status-1", OpenError::Status { found: status.0 });
        }
        let progress = update.progress();
        if !(0.0..=1.0).contains(&progress) {
            let number = f64::from(progress);
            found.add("status-1", OpenError::Number { what: "progress", found: number, expected: "0.0 to 1.0" });
        }
        self.examine_metrics(update, found);
    }

    fn examine_metrics(&self, update: fb::StatusUpdate<'_>, found: &mut Findings) {
        let ids = update.metric_ids().map_or(0, |ids| ids.len());
        let plain = update.metrics().into_iter().flatten();
        if ids != update.metric_values().map_or(0, |values| values.len()) {
            found.add("metric-1", OpenError::Metrics("as many numbers as values"));
        }
        if ids + plain.clone().count() > METRICS_MAX {
            found.add("metric-3", OpenError::Metrics("more than there may be"));
        }
        if self.knowledge.is_whole && update.metric_ids().into_iter().flatten().any(|id| self.names.name(id).is_none())
        {
            found.add("metric-1", OpenError::Metrics("a number that no name was given to"));
        }
        let is_named = |name: &str| !name.is_empty() && name.len() <= METRIC_NAME_BYTES_MAX;
        if plain.clone().any(|metric| !metric.name().is_some_and(is_named)) {
            found.add("metric-2", OpenError::Metrics("a name that is absent or too long"));
        }
        let values = update.metric_values().into_iter().flatten().chain(plain.map(|metric| metric.value()));
        for value in values.filter(|value| !value.is_finite()).take(1) {
            found.add("metric-3", OpenError::Number { what: "a metric", found: value, expected: "a finite number" });
        }
    }
}

type Batch<'a> = flatbuffers::Vector<'a, flatbuffers::ForwardsUOffset<fb::Item<'a>>>;

/// What was found so far, and in which batch item we are.
struct Findings {
    item: Option<u16>,
    examined: Examined,
}

impl Findings {
    fn add(&mut self, requirement: &'static str, error: OpenError) {
        self.examined.violations.push(Violation { requirement, item: self.item, error });
    }
}
