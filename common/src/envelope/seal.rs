//! Sealing: messages in, frames out (docs/protocol.md#sealing).
//!
//! The signature vector is created first, so it is the last bytes of the frame. One builder, one
//! compression table and one output buffer are used again and again: nothing is allocated once they
//! have grown to the size of what is sent.

use super::{
    CONTROL_STREAM, Features, SIGNATURE_BYTES, VERSION,
    keys::{MacKey, TAG_BYTES},
};
use crate::{
    fb,
    limits::*,
    message::{Message, MetricNumbers, WriteContext},
};
use flatbuffers::FlatBufferBuilder;

/// Seals what one peer sends in one session.
pub struct Sealer {
    key: MacKey,
    key_id: u32,
    features: Features,
    numbers: MetricNumbers,
    sequence: u64,
    builder: FlatBufferBuilder<'static>,
    body: FlatBufferBuilder<'static>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("key_id", &self.key_id).field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// Why a message is not sealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The body is larger than any receiver takes.
    #[error("a body of {found} bytes: at most {BODY_BYTES_MAX} can be sent")]
    TooLarge {
        /// Its size.
        found: usize,
    },
}

/// What is sealed: messages directly, or a piece of a larger body.
enum Content<'m> {
    One(&'m Message),
    Batch(&'m [Message]),
    Piece { offset: u64, total: u64, data: &'m [u8] },
}

impl Sealer {
    /// A sealer for one direction of one session.
    pub fn new(key: MacKey, key_id: u32, features: Features) -> Sealer {
        Sealer {
            key,
            key_id,
            features,
            numbers: MetricNumbers::default(),
            sequence: 0,
            builder: FlatBufferBuilder::new(),
            body: FlatBufferBuilder::new(),
        }
    }

    /// What both peers of the session know.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Seals messages for the control stream as one frame (a batch, if there are several), appended to
    /// `out`. Returns how many it took: a batch is closed at [`BATCH_BYTES_MAX`], and a peer that knows no
    /// batches gets one message a frame. Zero, with nothing appended, means that the first message is too large for
    /// a frame and wants [`Sealer::seal_bulk`].
    pub fn seal(&mut self, now_ms: u64, messages: &[Message], out: &mut Vec<u8>) -> usize {
        let Some(first) = messages.first() else { return 0 };
        let before = out.len();
        let many = messages.len() > 1 && self.features.has(Features::BATCH);
        let content = if many { Content::Batch(messages) } else { Content::One(first) };
        let (sequence, numbers) = (self.sequence, self.numbers.clone());
        let taken = self.frame(now_ms, CONTROL_STREAM, sequence, content, out);
        if out.len() - before > FRAME_BYTES_MAX {
            out.truncate(before);
            self.numbers = numbers;
            return 0;
        }
        self.sequence += 1;
        taken
    }

    /// Seals one message of any size for a bulk stream of its own, as however many frames it takes.
    pub fn seal_bulk(
        &mut self,
        now_ms: u64,
        stream: u32,
        message: &Message,
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        // A bulk stream is not ordered with the control stream, so names cannot be defined on it.
        self.body.reset();
        let mut none = MetricNumbers::default();
        let features = Features(self.features.0 & !Features::INTERNED_METRICS.0);
        let mut context = WriteContext { features, numbers: &mut none };
        let value = message.write(&mut self.body, &mut context);
        let args = fb::BodyArgs { message_type: message.kind(), message: Some(value), batch: None };
        let root = fb::Body::create(&mut self.body, &args);
        self.body.finish_minimal(root);
        let body = std::mem::take(&mut self.body);
        let bytes = body.finished_data();
        let result = self.pieces(now_ms, stream, bytes, out);
        self.body = body;
        result
    }

    fn pieces(&mut self, now_ms: u64, stream: u32, body: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        if body.len() > BODY_BYTES_MAX {
            return Err(SealError::TooLarge { found: body.len() });
        }
        let total = body.len() as u64;
        let mut offset = 0;
        for (sequence, data) in (0..).zip(body.chunks(CHUNK_BYTES)) {
            self.frame(now_ms, stream, sequence, Content::Piece { offset, total, data }, out);
            offset += data.len() as u64;
        }
        Ok(())
    }

    /// Builds, signs and appends one frame; returns how many messages went in.
    fn frame(&mut self, now_ms: u64, stream: u32, sequence: u64, content: Content<'_>, out: &mut Vec<u8>) -> usize {
        let builder = &mut self.builder;
        builder.reset();
        let mut tail = [0u8; SIGNATURE_BYTES];
        if let Some(id) = tail.first_chunk_mut::<4>() {
            *id = self.key_id.to_le_bytes();
        }
        let signature = Some(builder.create_vector(&tail));
        let mut args = fb::MessageEnvelopeArgs {
            version: VERSION,
            timestamp: now_ms,
            signature,
            stream,
            sequence,
            ..Default::default()
        };
        let mut context = WriteContext { features: self.features, numbers: &mut self.numbers };
        let taken = match content {
            Content::Piece { offset, total, data } => {
                let data = Some(builder.create_vector(data));
                args.message_type = fb::SchedulerMessage::Chunk;
                args.message =
                    Some(fb::Chunk::create(builder, &fb::ChunkArgs { offset, total, data }).as_union_value());
                1
            }
            Content::One(message) => {
                args.message_type = message.kind();
                args.message = Some(message.write(builder, &mut context));
                1
            }
            Content::Batch(messages) => {
                let mut items = smallvec::SmallVec::<[_; 64]>::new();
                for message in messages.iter().take(BATCH_ITEMS_MAX) {
                    let value = Some(message.write(builder, &mut context));
                    let item = fb::ItemArgs { message_type: message.kind(), message: value };
                    items.push(fb::Item::create(builder, &item));
                    if builder.unfinished_data().len() > BATCH_BYTES_MAX {
                        break;
                    }
                }
                args.batch = Some(builder.create_vector(&items));
                items.len()
            }
        };
        let root = fb::MessageEnvelope::create(builder, &args);
        builder.finish_size_prefixed(root, None);
        let frame = builder.finished_data();
        let signed = frame.len() - TAG_BYTES;
        let before = out.len();
        out.extend_from_slice(frame.get(..signed).unwrap_or_default());
        let tag = self.key.tag(out.get(before..).unwrap_or_default());
        out.extend_from_slice(&tag);
        taken
    }
}
