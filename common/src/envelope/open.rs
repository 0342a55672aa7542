//! Opening: frames in, verified views out (docs/protocol.md#opening).
//!
//! The order is promise P5, and every step bounds what the next may cost.

use super::{
    CONTROL_STREAM, SIGNATURE_BYTES, VERSION,
    keys::{MacKey, TAG_BYTES},
};
use crate::{
    fb,
    limits::*,
    message::{MessageRef, MetricNameError, MetricNames},
};
use std::collections::BTreeMap;

/// Opens what one peer sends in one session.
#[derive(Debug)]
pub struct Opener {
    key: MacKey,
    key_id: u32,
    names: MetricNames,
    sequence: u64,
    scratch: Vec<u8>,
    bulk: BTreeMap<u32, Assembly>,
}

/// A body that arrives in pieces.
#[derive(Debug, Default)]
struct Assembly {
    sequence: u64,
    total: usize,
    bytes: Vec<u8>,
}

/// Why a frame is refused. The session ends on all but [`OpenError::is_fatal`]'s exceptions.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OpenError {
    /// Shorter than any frame.
    #[error("a frame of {found} bytes: the shortest has {}", SIGNATURE_BYTES + 8)]
    TooShort {
        /// Its size.
        found: usize,
    },
    /// Longer than a session takes.
    #[error("a frame of {found} bytes: at most {max} are taken")]
    TooLong {
        /// What its length prefix says.
        found: usize,
        /// The cap.
        max: usize,
    },
    /// The length prefix is not that of the frame.
    #[error("the length prefix says {prefix}, the frame has {found} bytes after it")]
    Length {
        /// What the prefix says.
        prefix: usize,
        /// What is there.
        found: usize,
    },
    /// Sealed with a key that is not this session's.
    #[error("sealed with key id {found}: expected {expected}")]
    KeyId {
        /// What came.
        found: u32,
        /// The session's.
        expected: u32,
    },
    /// The tag is not that of the bytes under the session's key.
    #[error("the signature is wrong: the frame was changed, or sealed for another session or direction")]
    Signature,
    /// Authentic, but not a well-formed FlatBuffer.
    #[error("not a well-formed {what}: {error}")]
    Malformed {
        /// Which part.
        what: &'static str,
        /// The verifier's words.
        error: String,
    },
    /// The table's signature field is not the frame's tail.
    #[error("the signature field is not the last {SIGNATURE_BYTES} bytes of the frame")]
    SignaturePlace,
    /// A version of the envelope that this build does not read.
    #[error("envelope version {found}: expected {VERSION}")]
    Version {
        /// What came.
        found: u16,
    },
    /// The stream it says is not the stream it came on.
    #[error("the frame says stream {found}, it came on {expected}")]
    Stream {
        /// What it says.
        found: u32,
        /// Where it came.
        expected: u32,
    },
    /// Not the next on its stream: replayed, dropped or reordered.
    #[error("sequence {found} on stream {stream}: expected {expected}")]
    Sequence {
        /// The stream.
        stream: u32,
        /// What came.
        found: u64,
        /// The next.
        expected: u64,
    },
    /// Too far from cluster time.
    #[error("stale: sealed at {timestamp_ms} ms, arrived at {arrived_ms} ms, more than {tolerance_ms} ms apart")]
    Stale {
        /// The envelope's timestamp.
        timestamp_ms: u64,
        /// The receiver's cluster time.
        arrived_ms: u64,
        /// What is tolerated.
        tolerance_ms: u64,
    },
    /// None or more than one of message, packed and batch, or one where it may not be.
    #[error("the envelope's content is wrong: {0}")]
    Content(&'static str),
    /// The packed part does not keep to its own words or our bounds.
    #[error("the packed body is wrong: {0}")]
    Packed(&'static str),
    /// A chunk that does not continue its body.
    #[error("chunk at {found} of a body of {total} bytes: expected offset {expected}")]
    Chunk {
        /// Its offset.
        found: u64,
        /// The total it says.
        total: u64,
        /// Where the body stands.
        expected: u64,
    },
    /// More bulk streams than may be open.
    #[error("more than {BULK_STREAMS_MAX} bulk streams at a time")]
    BulkStreams,
    /// A metric's name or value that may not be.
    #[error("metric: {0}")]
    MetricName(#[from] MetricNameError),
    /// Metrics without a name, without a value, or too many.
    #[error("metrics: {0}")]
    Metrics(&'static str),
    /// NaN, infinite, or outside its range.
    #[error("{what} is {found}: expected {expected}")]
    Number {
        /// Which field.
        what: &'static str,
        /// What came.
        found: f64,
        /// What would do.
        expected: &'static str,
    },
}

impl OpenError {
    /// The code of the `Nack` that answers it.
    pub fn code(&self) -> fb::ErrorCode {
        match self {
            OpenError::Stale { .. } => fb::ErrorCode::Stale,
            OpenError::TooLong { .. } => fb::ErrorCode::TooLarge,
            OpenError::KeyId { .. } | OpenError::Signature | OpenError::SignaturePlace => fb::ErrorCode::Authorization,
            OpenError::Version { .. } => fb::ErrorCode::UnsupportedVersion,
            OpenError::MetricName(_) | OpenError::Metrics(_) | OpenError::Number { .. } => fb::ErrorCode::Validation,
            OpenError::TooShort { .. }
            | OpenError::Length { .. }
            | OpenError::Malformed { .. }
            | OpenError::Stream { .. }
            | OpenError::Sequence { .. }
            | OpenError::Content(_)
            | OpenError::Packed(_)
            | OpenError::Chunk { .. }
            | OpenError::BulkStreams => fb::ErrorCode::MessageFormat,
        }
    }

    /// Whether the session must end: all that says the peer, or the link, cannot be trusted to go on.
    /// A refused number or metric is the sender's mistake in one message, answered and passed over.
    pub fn is_fatal(&self) -> bool {
        !matches!(self, OpenError::Number { .. } | OpenError::Metrics(_))
    }
}

/// An authentic, verified envelope. Only [`Opener`] makes one.
#[derive(Clone, Copy, Debug)]
pub struct Opened<'a> {
    content: Content<'a>,
    names: &'a MetricNames,
    /// Cluster time at which the sender sealed it, ms.
    pub timestamp_ms: u64,
    /// The stream it came on.
    pub stream: u32,
    /// Its place on that stream.
    pub sequence: u64,
}

#[derive(Clone, Copy, Debug)]
enum Content<'a> {
    /// A piece of a body that is not complete yet.
    Partial,
    Envelope(fb::MessageEnvelope<'a>),
    Body(fb::Body<'a>),
}

impl<'a> Opened<'a> {
    /// Its messages with their batch items, in order. Empty while a chunked body is incomplete.
    pub fn messages(&self) -> impl Iterator<Item = (u16, MessageRef<'a>)> + use<'a> {
        let names = self.names;
        let (one, batch) = match self.content {
            Content::Partial => (None, None),
            Content::Envelope(envelope) => (MessageRef::of_envelope(envelope, names), envelope.batch()),
            Content::Body(body) => (MessageRef::of_body(body, names), body.batch()),
        };
        let items = batch.into_iter().flatten().filter_map(move |item| MessageRef::of_item(item, names));
        (0..).zip(one.into_iter().chain(items))
    }

    /// The first message, for those who expect exactly one.
    pub fn message(&self) -> Option<MessageRef<'a>> {
        self.messages().next().map(|(_, message)| message)
    }
}

impl Opener {
    /// An opener for one direction of one session.
    pub fn new(key: MacKey, key_id: u32) -> Opener {
        Opener { key, key_id, names: MetricNames::default(), sequence: 0, scratch: Vec::new(), bulk: BTreeMap::new() }
    }

    /// Opens a whole frame, length prefix included, that came on `stream`. `arrived_ms` is the receiver's cluster time when its first
    /// byte arrived; `tolerance_ms` is [`STALE_AFTER_MS`], plus time in which the receiver itself did not
    /// read, or `u64::MAX` where freshness does not apply (bulk streams, `Hello`, `Welcome`).
    pub fn open<'a>(
        &'a mut self,
        frame: &'a [u8],
        stream: u32,
        arrived_ms: u64,
        tolerance_ms: u64,
    ) -> Result<Opened<'a>, OpenError> {
        let tail = self.authenticate(frame)?;
        let envelope = verify_envelope(frame)?;
        if envelope.signature().map(|field| field.bytes().as_ptr_range()) != Some(tail.as_ptr_range()) {
            return Err(OpenError::SignaturePlace);
        }
        if envelope.version() != VERSION {
            return Err(OpenError::Version { found: envelope.version() });
        }
        self.check_order(&envelope, stream, arrived_ms, tolerance_ms)?;
        let (timestamp_ms, sequence) = (envelope.timestamp(), envelope.sequence());
        let parts = [
            envelope.message_type() != fb::SchedulerMessage::NONE,
            envelope.packed().is_some(),
            envelope.batch().is_some(),
        ];
        if parts.into_iter().filter(|part| *part).count() != 1 {
            return Err(OpenError::Content("expected exactly one of message, packed and batch"));
        }
        let this: &'a mut Self = self;
        let content = if let Some(packed) = envelope.packed() {
            decompress(packed, &mut this.scratch)?;
            let body = verify_body(&this.scratch)?;
            Content::Body(body)
        } else if let Some(chunk) = envelope.message_as_chunk() {
            if stream == CONTROL_STREAM {
                return Err(OpenError::Content("a chunk on the control stream"));
            }
            match assemble(&mut this.bulk, &mut this.scratch, stream, sequence, chunk)? {
                true => Content::Body(verify_body(&this.scratch)?),
                false => Content::Partial,
            }
        } else {
            Content::Envelope(envelope)
        };
        check_content(content, stream, &mut this.names)?;
        Ok(Opened { content, names: &this.names, timestamp_ms, stream, sequence })
    }

    /// Forgets a bulk stream that ended, finished or not.
    pub fn close_bulk(&mut self, stream: u32) {
        self.bulk.remove(&stream);
    }

    /// Cap, length prefix, key id and tag: all that is looked at before anything is parsed. Returns
    /// the frame's tail, key id and tag.
    fn authenticate<'a>(&self, frame: &'a [u8]) -> Result<&'a [u8], OpenError> {
        if frame.len() > FRAME_BYTES_CODEC_MAX {
            return Err(OpenError::TooLong { found: frame.len(), max: FRAME_BYTES_CODEC_MAX });
        }
        let short = OpenError::TooShort { found: frame.len() };
        if frame.len() < SIGNATURE_BYTES + 8 {
            return Err(short);
        }
        let (prefix, rest) = frame.split_first_chunk::<4>().ok_or(short)?;
        let prefix = u32::from_le_bytes(*prefix) as usize;
        if prefix != rest.len() {
            return Err(OpenError::Length { prefix, found: rest.len() });
        }
        let (_, tail) = frame.split_at(frame.len() - SIGNATURE_BYTES);
        let (signed, tag) = frame.split_at(frame.len() - TAG_BYTES);
        let found = tail.first_chunk::<4>().map_or(0, |id| u32::from_le_bytes(*id));
        if found != self.key_id {
            return Err(OpenError::KeyId { found, expected: self.key_id });
        }
        if !self.key.verify(signed, tag) {
            return Err(OpenError::Signature);
        }
        Ok(tail)
    }

    /// Stream, contiguous sequence, freshness. The sequence moves on before freshness is judged: a
    /// stale frame was still the next.
    fn check_order(
        &mut self,
        envelope: &fb::MessageEnvelope<'_>,
        stream: u32,
        arrived_ms: u64,
        tolerance_ms: u64,
    ) -> Result<(), OpenError> {
        if envelope.stream() != stream {
            return Err(OpenError::Stream { found: envelope.stream(), expected: stream });
        }
        let sequence = if stream == CONTROL_STREAM {
            &mut self.sequence
        } else {
            if !self.bulk.contains_key(&stream) && self.bulk.len() >= BULK_STREAMS_MAX {
                return Err(OpenError::BulkStreams);
            }
            &mut self.bulk.entry(stream).or_default().sequence
        };
        let (found, expected) = (envelope.sequence(), *sequence);
        if found != expected {
            return Err(OpenError::Sequence { stream, found, expected });
        }
        *sequence += 1;
        let timestamp_ms = envelope.timestamp();
        if stream == CONTROL_STREAM && timestamp_ms.abs_diff(arrived_ms) > tolerance_ms {
            return Err(OpenError::Stale { timestamp_ms, arrived_ms, tolerance_ms });
        }
        Ok(())
    }
}

/// The bounds under which a FlatBuffer of `length` bytes is verified: hostile ones cost no more than
/// honest ones, which need at most 1.26 × their length.
pub fn verifier_options(length: usize) -> flatbuffers::VerifierOptions {
    flatbuffers::VerifierOptions {
        max_depth: 16,
        max_tables: length / 8 + 16,
        max_apparent_size: 4 * length + 4096,
        ignore_missing_null_terminator: false,
    }
}

fn verify_envelope(frame: &[u8]) -> Result<fb::MessageEnvelope<'_>, OpenError> {
    flatbuffers::size_prefixed_root_with_opts::<fb::MessageEnvelope<'_>>(&verifier_options(frame.len()), frame)
        .map_err(|error| OpenError::Malformed { what: "envelope", error: error.to_string() })
}

fn verify_body(bytes: &[u8]) -> Result<fb::Body<'_>, OpenError> {
    flatbuffers::root_with_opts::<fb::Body<'_>>(&verifier_options(bytes.len()), bytes)
        .map_err(|error| OpenError::Malformed { what: "body", error: error.to_string() })
}

/// Decompresses into exactly as many bytes as it says, never more than the cap.
fn decompress(packed: fb::Packed<'_>, scratch: &mut Vec<u8>) -> Result<(), OpenError> {
    if packed.compression() != fb::Compression::Lz4Block {
        return Err(OpenError::Packed("a compression that this build does not know"));
    }
    let data = packed.data().map(|data| data.bytes()).unwrap_or_default();
    let raw = packed.raw_len() as usize;
    // An LZ4 block cannot expand more than 255-fold.
    if raw > BODY_BYTES_MAX || raw > 255 * data.len() + 64 {
        return Err(OpenError::Packed("its raw length is beyond the bound"));
    }
    scratch.clear();
    scratch.resize(raw, 0);
    match lz4_flex::block::decompress_into(data, scratch) {
        Ok(length) if length == raw => Ok(()),
        Ok(_) => Err(OpenError::Packed("its raw length is not what it decompressed to")),
        Err(_) => Err(OpenError::Packed("not an LZ4 block")),
    }
}

/// Adds a piece; when the body is whole, leaves it in `scratch` and says so.
fn assemble(
    bulk: &mut BTreeMap<u32, Assembly>,
    scratch: &mut Vec<u8>,
    stream: u32,
    sequence: u64,
    chunk: fb::Chunk<'_>,
) -> Result<bool, OpenError> {
    let Some(assembly) = bulk.get_mut(&stream) else { return Err(OpenError::BulkStreams) };
    let data = chunk.data().map(|data| data.bytes()).unwrap_or_default();
    let wrong =
        |expected: usize| OpenError::Chunk { found: chunk.offset(), total: chunk.total(), expected: expected as u64 };
    let total = usize::try_from(chunk.total()).ok().filter(|total| *total <= BODY_BYTES_MAX);
    let total = total.ok_or(OpenError::TooLong { found: chunk.total() as usize, max: BODY_BYTES_MAX })?;
    if sequence == 0 {
        assembly.total = total;
    }
    let at = assembly.bytes.len();
    if total != assembly.total || chunk.offset() != at as u64 || at + data.len() > total || data.is_empty() {
        return Err(wrong(at));
    }
    assembly.bytes.extend_from_slice(data);
    if assembly.bytes.len() < total {
        return Ok(false);
    }
    std::mem::swap(scratch, &mut assembly.bytes);
    bulk.remove(&stream);
    Ok(true)
}

/// What holds for every message whatever its meaning: batches do not nest and are bounded, numbers
/// are numbers, metric names are defined before they are used.
fn check_content(content: Content<'_>, stream: u32, names: &mut MetricNames) -> Result<(), OpenError> {
    let (one, batch) = match content {
        Content::Partial => return Ok(()),
        Content::Envelope(envelope) => (envelope.message_as_status_update(), envelope.batch()),
        Content::Body(body) => {
            if (body.message_type() != fb::SchedulerMessage::NONE) == body.batch().is_some() {
                return Err(OpenError::Content("expected exactly one of message and batch in a body"));
            }
            if body.message_type() == fb::SchedulerMessage::Chunk {
                return Err(OpenError::Content("a chunk inside a body"));
            }
            (body.message_as_status_update(), body.batch())
        }
    };
    if let Some(update) = one {
        check_status(update, stream, names)?;
    }
    let Some(batch) = batch else { return Ok(()) };
    if batch.len() > BATCH_ITEMS_MAX || batch.is_empty() {
        return Err(OpenError::Content("a batch that is empty or too long"));
    }
    for item in batch {
        match item.message_type() {
            fb::SchedulerMessage::NONE => return Err(OpenError::Content("a batch item without a message")),
            fb::SchedulerMessage::Chunk => return Err(OpenError::Content("a chunk inside a batch")),
            fb::SchedulerMessage::StatusUpdate => {
                if let Some(update) = item.message_as_status_update() {
                    check_status(update, stream, names)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_status(update: fb::StatusUpdate<'_>, stream: u32, names: &mut MetricNames) -> Result<(), OpenError> {
    // Names first: also a message that is refused below has defined them for those that follow.
    for definition in update.metric_names().into_iter().flatten() {
        if stream != CONTROL_STREAM {
            return Err(OpenError::Content("metric names defined on a bulk stream"));
        }
        names.define(definition.id(), definition.name().unwrap_or_default())?;
    }
    let progress = update.progress();
    if !(0.0..=1.0).contains(&progress) {
        return Err(OpenError::Number { what: "progress", found: f64::from(progress), expected: "0.0 to 1.0" });
    }
    let ids = update.metric_ids().map_or(0, |ids| ids.len());
    let plain = update.metrics().map_or(0, |plain| plain.len());
    if ids != update.metric_values().map_or(0, |values| values.len()) {
        return Err(OpenError::Metrics("as many numbers as values"));
    }
    if ids + plain > METRICS_MAX {
        return Err(OpenError::Metrics("more than there may be"));
    }
    if update.metric_ids().into_iter().flatten().any(|id| names.name(id).is_none()) {
        return Err(OpenError::Metrics("a number that no name was given to"));
    }
    let named = |metric: fb::Metric<'_>| {
        metric.name().is_some_and(|name| !name.is_empty() && name.len() <= METRIC_NAME_BYTES_MAX)
    };
    if !update.metrics().into_iter().flatten().all(named) {
        return Err(OpenError::Metrics("a name that is absent or too long"));
    }
    let values = update.metric_values().into_iter().flatten();
    let plain = update.metrics().into_iter().flatten().map(|metric| metric.value());
    match values.chain(plain).find(|value| !value.is_finite()) {
        Some(found) => Err(OpenError::Number { what: "a metric", found, expected: "a finite number" }),
        None => Ok(()),
    }
}
