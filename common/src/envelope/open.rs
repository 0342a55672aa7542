//! Opening: frames in, verified views out (docs/protocol.md#opening).
//!
//! The order is promise P5, and every step bounds what the next may cost.

use super::{
    CONTROL_STREAM, OpenError, SIGNATURE_BYTES, VERSION,
    bulk::{Bulk, Whole},
    check::{Refused, check_content, content_of_body},
    fields::Fields,
    keys::{MacKey, TAG_BYTES},
    pack::{check_packed, unpack},
};
use crate::{
    fb::{self, MessageEnvelope as Wire},
    limits::*,
    message::{MessageRef, MetricNames, StatusRef},
    verified,
};

/// Opens what one peer sends in one session.
#[derive(Debug)]
pub struct Opener {
    key: MacKey,
    key_id: u32,
    names: MetricNames,
    sequence: u64,
    scratch: Vec<u8>,
    bulk: Bulk,
    refused: Refused,
    frame_bytes_max: usize,
}

/// An authentic, verified envelope. Only [`Opener`] makes one.
#[derive(Clone, Copy, Debug)]
pub struct Opened<'a> {
    content: Content<'a>,
    names: &'a MetricNames,
    refused: &'a [(u16, OpenError)],
    /// Cluster time at which the sender sealed it, ms.
    pub timestamp_ms: u64,
    /// The stream it came on.
    pub stream: u32,
    /// Its place on that stream.
    pub sequence: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Content<'a> {
    /// A piece of a body that is not complete yet.
    Partial,
    /// The only message of an envelope or a body: the most frequent kind is looked up once.
    Update(fb::StatusUpdate<'a>),
    Envelope(fb::MessageEnvelope<'a>),
    Body(fb::Body<'a>),
    Batch(Items<'a>),
}

pub(super) type Items<'a> = flatbuffers::Vector<'a, flatbuffers::ForwardsUOffset<fb::Item<'a>>>;

impl<'a> Opened<'a> {
    /// Its messages with their batch items, in order, without those that were refused. Empty while a
    /// chunked body is incomplete.
    pub fn messages(&self) -> Messages<'a> {
        let (single, items) = match self.content {
            Content::Batch(items) => (Content::Partial, Some(items.iter())),
            single => (single, None),
        };
        Messages { single, items, next: 0, names: self.names, refused: self.refused }
    }

    /// The batch items that were refused, in order, each to be answered by a `Nack` that names it. A
    /// single message that is refused is [`Opener::open`]'s error instead.
    pub fn refused(&self) -> &'a [(u16, OpenError)] {
        self.refused
    }

    /// The first message, for those who expect exactly one.
    pub fn message(&self) -> Option<MessageRef<'a>> {
        self.messages().next().map(|(_, message)| message)
    }
}

/// The messages of an envelope, each with its place in the batch.
#[derive(Debug)]
pub struct Messages<'a> {
    /// What holds the only message, until it is given.
    single: Content<'a>,
    items: Option<flatbuffers::VectorIter<'a, flatbuffers::ForwardsUOffset<fb::Item<'a>>>>,
    next: u16,
    names: &'a MetricNames,
    refused: &'a [(u16, OpenError)],
}

impl<'a> Iterator for Messages<'a> {
    type Item = (u16, MessageRef<'a>);

    #[inline]
    fn next(&mut self) -> Option<(u16, MessageRef<'a>)> {
        let Some(items) = &mut self.items else {
            let message = match std::mem::replace(&mut self.single, Content::Partial) {
                Content::Partial | Content::Batch(_) => None,
                Content::Update(update) => Some(MessageRef::StatusUpdate(StatusRef { update, names: self.names })),
                Content::Envelope(envelope) => MessageRef::of_envelope(envelope, self.names),
                Content::Body(body) => MessageRef::of_body(body, self.names),
            };
            return message.map(|message| (0, message));
        };
        loop {
            let item = items.next()?;
            let number = self.next;
            self.next += 1;
            if self.refused.is_empty() || self.refused.binary_search_by_key(&number, |(item, _)| *item).is_err() {
                return MessageRef::of_item(item, self.names).map(|message| (number, message));
            }
        }
    }
}

impl Opener {
    /// An opener for one direction of one session.
    pub fn new(key: MacKey, key_id: u32) -> Opener {
        Opener {
            key,
            key_id,
            names: MetricNames::default(),
            sequence: 0,
            scratch: Vec::new(),
            bulk: Bulk::default(),
            refused: Refused::new(),
            frame_bytes_max: FRAME_BYTES_MAX,
        }
    }

    /// With another cap on a frame than a session's [`FRAME_BYTES_MAX`], at most
    /// [`FRAME_BYTES_CODEC_MAX`]: for transports that carry more.
    pub fn with_frame_bytes_max(self, bytes: usize) -> Opener {
        Opener { frame_bytes_max: bytes.min(FRAME_BYTES_CODEC_MAX), ..self }
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
        let fields = Fields::of(envelope._tab);
        // §open-5
        let signature = fields.vector(Wire::VT_SIGNATURE);
        if signature.map(<[u8]>::as_ptr_range) != Some(tail.as_ptr_range()) {
            return Err(OpenError::SignaturePlace);
        }
        // §open-6
        let version = fields.number(Wire::VT_VERSION).map_or(VERSION, u16::from_le_bytes);
        if version != VERSION {
            return Err(OpenError::Version { found: version });
        }
        let (timestamp_ms, sequence) = self.check_order(&fields, stream, arrived_ms, tolerance_ms)?;
        // §envelope-1 §open-9
        let kind = fb::SchedulerMessage(fields.number(Wire::VT_MESSAGE_TYPE).map_or(0, u8::from_le_bytes));
        let packed = fields.has(Wire::VT_PACKED).then(|| envelope.packed()).flatten();
        let batch = fields.has(Wire::VT_BATCH).then(|| envelope.batch()).flatten();
        let parts = [kind != fb::SchedulerMessage::NONE, packed.is_some(), batch.is_some()];
        if parts.into_iter().filter(|part| *part).count() != 1 {
            return Err(OpenError::Content("expected exactly one of message, packed and batch"));
        }
        if self.scratch.len() > self.frame_bytes_max / 2 {
            // One large body does not keep its room for the rest of the session.
            self.scratch = Vec::new();
        }
        self.refused.clear();
        let this: &'a mut Self = self;
        let content = if let Some(packed) = packed.filter(|_| stream == CONTROL_STREAM) {
            let data = packed.data().map(|data| data.bytes()).unwrap_or_default();
            // §open-10
            check_packed(packed.compression(), data.len(), packed.raw_len())?;
            content_of_body(verify_body(unpack(data, packed.raw_len(), &mut this.scratch)?)?)?
        } else if kind == fb::SchedulerMessage::Chunk
            && let Some(chunk) = envelope.message_as_chunk()
        {
            // §stream-3
            if stream == CONTROL_STREAM {
                return Err(OpenError::Content("a chunk on the control stream"));
            }
            match this.bulk.on_chunk(stream, chunk)? {
                Some(whole) => content_of_body(verify_body(body_of(whole, &mut this.scratch)?)?)?,
                None => Content::Partial,
            }
        } else if stream != CONTROL_STREAM {
            return Err(OpenError::Content("something else than a chunk on a bulk stream"));
        } else if let Some(batch) = batch {
            Content::Batch(batch)
        } else {
            envelope.message_as_status_update().map_or(Content::Envelope(envelope), Content::Update)
        };
        check_content(content, stream, &mut this.names, &mut this.refused)?;
        Ok(Opened { content, names: &this.names, refused: &this.refused, timestamp_ms, stream, sequence })
    }

    /// Forgets a bulk stream that ended, finished or not.
    pub fn close_bulk(&mut self, stream: u32) {
        self.bulk.close(stream);
    }

    /// Cap, length prefix, key id and tag: all that is looked at before anything is parsed. Returns
    /// the frame's tail, key id and tag.
    fn authenticate<'a>(&self, frame: &'a [u8]) -> Result<&'a [u8], OpenError> {
        if frame.len() > self.frame_bytes_max {
            return Err(OpenError::TooLong { found: frame.len(), max: self.frame_bytes_max });
        }
        let short = OpenError::TooShort { found: frame.len() };
        // §open-1
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
        // §open-2
        if found != self.key_id {
            return Err(OpenError::KeyId { found, expected: self.key_id });
        }
        // §open-3
        if !self.key.verify(signed, tag) {
            return Err(OpenError::Signature);
        }
        Ok(tail)
    }

    /// Stream, contiguous sequence, freshness. The sequence moves on before freshness is judged: a
    /// stale frame was still the next. Returns the timestamp, ms, and the sequence.
    fn check_order(
        &mut self,
        envelope: &Fields<'_>,
        stream: u32,
        arrived_ms: u64,
        tolerance_ms: u64,
    ) -> Result<(u64, u64), OpenError> {
        let found = envelope.number(Wire::VT_STREAM).map_or(0, u32::from_le_bytes);
        // §open-7
        if found != stream {
            return Err(OpenError::Stream { found, expected: stream });
        }
        let timestamp_ms = envelope.number(Wire::VT_TIMESTAMP).map_or(0, u64::from_le_bytes);
        let found = envelope.number(Wire::VT_SEQUENCE).map_or(0, u64::from_le_bytes);
        if stream != CONTROL_STREAM {
            self.bulk.on_frame(stream, found)?;
            return Ok((timestamp_ms, found));
        }
        if found != self.sequence {
            return Err(OpenError::Sequence { stream, found, expected: self.sequence });
        }
        self.sequence += 1;
        // §open-8 §fresh-1
        if timestamp_ms.abs_diff(arrived_ms) > tolerance_ms {
            return Err(OpenError::Stale { timestamp_ms, arrived_ms, tolerance_ms });
        }
        Ok((timestamp_ms, found))
    }
}

pub(super) fn verify_envelope(frame: &[u8]) -> Result<fb::MessageEnvelope<'_>, OpenError> {
    verified::envelope(frame).map_err(|error| OpenError::Malformed { what: "envelope", error: error.to_string() })
}

pub(super) fn verify_body(bytes: &[u8]) -> Result<fb::Body<'_>, OpenError> {
    verified::body(bytes).map_err(|error| OpenError::Malformed { what: "body", error: error.to_string() })
}

/// The bytes of a body that arrived in pieces, in `scratch`.
fn body_of(whole: Whole, scratch: &mut Vec<u8>) -> Result<&[u8], OpenError> {
    match whole.compression {
        fb::Compression::None => {
            *scratch = whole.bytes;
            Ok(scratch)
        }
        _ => unpack(&whole.bytes, whole.raw_len, scratch),
    }
}
