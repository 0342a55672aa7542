//! Sealing: messages in, frames out (docs/protocol.md#sealing).
//!
//! The signature vector is created first, so it is the last bytes of the frame. What is needed only
//! while a frame is built (builders, compression tables, buffers) belongs to the thread, not to the
//! session: it is used again and again, so that nothing is allocated once it has grown to the size of
//! what is sent, and ten thousand idle sessions hold none of it.

use super::{
    CONTROL_STREAM, Features, SIGNATURE_BYTES, VERSION,
    keys::{MacKey, TAG_BYTES},
    pack::Packer,
};
use crate::{
    fb,
    limits::*,
    message::{Message, MetricNumbers, WriteContext},
};
use flatbuffers::{FlatBufferBuilder, WIPOffset};
use std::cell::RefCell;

/// Seals what one peer sends in one session.
pub struct Sealer {
    key: MacKey,
    key_id: u32,
    features: Features,
    numbers: MetricNumbers,
    sequence: u64,
    frame_bytes_max: usize,
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

impl Sealer {
    /// A sealer for one direction of one session.
    pub fn new(key: MacKey, key_id: u32, features: Features) -> Sealer {
        Sealer {
            key,
            key_id,
            features,
            numbers: MetricNumbers::default(),
            sequence: 0,
            frame_bytes_max: FRAME_BYTES_MAX,
        }
    }

    /// With another cap on a frame than a session's [`FRAME_BYTES_MAX`], at most
    /// [`FRAME_BYTES_CODEC_MAX`]: for transports that take more.
    pub fn with_frame_bytes_max(self, bytes: usize) -> Sealer {
        Sealer { frame_bytes_max: bytes.min(FRAME_BYTES_CODEC_MAX), ..self }
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
        // Three quarters of a frame: BODY_BYTES_INLINE_MAX of FRAME_BYTES_MAX.
        if first.bytes_at_least() > self.frame_bytes_max / 4 * 3 {
            return 0;
        }
        // §envelope-4
        let many = if self.features.has(Features::BATCH) { batch_length(messages) } else { 1 };
        let (before, names) = (out.len(), self.numbers.count());
        for count in [many, 1] {
            let batch = messages.get(..count).unwrap_or_default();
            let taken = BENCH.with_borrow_mut(|bench| self.seal_control(bench, now_ms, batch, out));
            if out.len() - before <= self.frame_bytes_max {
                self.sequence += 1;
                return taken;
            }
            // Too large after all, perhaps because of those behind the first.
            out.truncate(before);
            self.numbers.roll_back(names);
            if count == 1 {
                break;
            }
        }
        0
    }

    /// Seals one message of any size for a bulk stream of its own, as however many frames it takes.
    pub fn seal_bulk(
        &mut self,
        now_ms: u64,
        stream: u32,
        message: &Message,
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        BENCH.with_borrow_mut(|bench| self.seal_pieces(bench, now_ms, stream, message, out))
    }

    fn seal_pieces(
        &self,
        bench: &mut Bench,
        now_ms: u64,
        stream: u32,
        message: &Message,
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        // A bulk stream is not ordered with the control stream, so names cannot be defined on it.
        // §stream-8
        let features = Features(self.features.0 & !Features::INTERNED_METRICS.0);
        let mut numbers = MetricNumbers::default();
        let mut context = WriteContext { features, numbers: &mut numbers };
        let Bench { frame, body, items, packer } = bench;
        write_body(body, items, std::slice::from_ref(message), &mut context);
        let raw = body.finished_data();
        if raw.len() > BODY_BYTES_MAX {
            return Err(SealError::TooLarge { found: raw.len() });
        }
        let packed = if self.features.has(Features::PACKED) { packer.pack(raw) } else { None };
        let (compression, raw_len) = match packed {
            Some(_) => (fb::Compression::Lz4Block, raw.len() as u32),
            None => (fb::Compression::None, 0),
        };
        let bytes = packed.unwrap_or(raw);
        let mut offset = 0;
        for (sequence, piece) in (0..).zip(bytes.chunks(CHUNK_BYTES)) {
            let mut args = self.begin(frame, now_ms, stream, sequence);
            let data = Some(frame.create_vector(piece));
            let chunk = fb::ChunkArgs { offset, total: bytes.len() as u64, data, compression, raw_len };
            args.message_type = fb::SchedulerMessage::Chunk;
            args.message = Some(fb::Chunk::create(frame, &chunk).as_union_value());
            finish(frame, &args);
            self.sign(frame.finished_data(), out);
            offset += piece.len() as u64;
        }
        bench.tidy(self.frame_bytes_max);
        Ok(())
    }

    /// One frame of the control stream, appended; its sequence and its size are the caller's to judge.
    fn seal_control(&mut self, bench: &mut Bench, now_ms: u64, messages: &[Message], out: &mut Vec<u8>) -> usize {
        let names = self.numbers.count();
        let packs = self.features.has(Features::PACKED);
        // What surely is large enough is compressed first, and written plainly only if that does not pay.
        let first = packs && sum_reaches(messages, COMPRESS_BYTES_MIN);
        let mut taken = messages.len();
        if first {
            taken = self.try_pack(bench, now_ms, messages);
        }
        if !first || !bench.packer.paid() {
            self.numbers.roll_back(names);
            taken = self.write_plain(bench, now_ms, messages.get(..taken).unwrap_or_default());
            if packs && !first && bench.frame.finished_data().len() >= COMPRESS_BYTES_MIN {
                self.numbers.roll_back(names);
                self.try_pack(bench, now_ms, messages.get(..taken).unwrap_or_default());
            }
        }
        self.sign(bench.frame.finished_data(), out);
        bench.tidy(self.frame_bytes_max);
        taken
    }

    /// Leaves a frame with the messages as they are in the bench; returns how many there was room for.
    fn write_plain(&mut self, bench: &mut Bench, now_ms: u64, messages: &[Message]) -> usize {
        let Bench { frame, items, .. } = bench;
        let mut args = self.begin(frame, now_ms, CONTROL_STREAM, self.sequence);
        let mut context = WriteContext { features: self.features, numbers: &mut self.numbers };
        let taken = match messages {
            [message] => {
                args.message_type = message.kind();
                args.message = Some(message.write(frame, &mut context));
                1
            }
            _ => {
                args.batch = Some(write_items(frame, items, messages, &mut context));
                items.len()
            }
        };
        finish(frame, &args);
        taken
    }

    /// Leaves a frame with the messages compressed in the bench if that pays, else leaves the bench's
    /// frame alone; [`Packer::paid`] says which. Returns how many there was room for.
    fn try_pack(&mut self, bench: &mut Bench, now_ms: u64, messages: &[Message]) -> usize {
        let Bench { frame, body, items, packer } = bench;
        let mut context = WriteContext { features: self.features, numbers: &mut self.numbers };
        let taken = write_body(body, items, messages, &mut context);
        let raw = body.finished_data();
        let raw_len = raw.len() as u32;
        if let Some(data) = packer.pack(raw) {
            let mut args = self.begin(frame, now_ms, CONTROL_STREAM, self.sequence);
            let data = Some(frame.create_vector(data));
            let packed = fb::PackedArgs { compression: fb::Compression::Lz4Block, raw_len, data };
            args.packed = Some(fb::Packed::create(frame, &packed));
            finish(frame, &args);
        }
        taken
    }

    // §seal-1
    /// Begins a frame with what must be its last bytes: the signature vector, key id and room for the tag.
    fn begin(&self, frame: &mut Builder, now_ms: u64, stream: u32, sequence: u64) -> fb::MessageEnvelopeArgs<'static> {
        frame.reset();
        let mut tail = [0u8; SIGNATURE_BYTES];
        if let Some(id) = tail.first_chunk_mut::<4>() {
            *id = self.key_id.to_le_bytes();
        }
        let signature = Some(frame.create_vector(&tail));
        // §seal-2
        fb::MessageEnvelopeArgs {
            version: VERSION,
            timestamp: now_ms,
            signature,
            stream,
            sequence,
            ..Default::default()
        }
    }

    // §seal-3
    /// Appends a frame with its tag: the one copy that sealing makes of what was built.
    fn sign(&self, frame: &[u8], out: &mut Vec<u8>) {
        let before = out.len();
        out.extend_from_slice(frame.get(..frame.len() - TAG_BYTES).unwrap_or_default());
        let tag = self.key.tag(out.get(before..).unwrap_or_default());
        out.extend_from_slice(&tag);
    }
}

type Builder = FlatBufferBuilder<'static>;
type Items = Vec<WIPOffset<fb::Item<'static>>>;

/// What sealing needs while it works on a frame; holds nothing between two frames.
#[derive(Default)]
struct Bench {
    frame: Builder,
    body: Builder,
    items: Items,
    packer: Packer,
}

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::default();
}

impl Bench {
    /// Gives back what an unusually large body made it grow to: a device that once sent a long log stays
    /// small.
    fn tidy(&mut self, frame_bytes_max: usize) {
        let keep = frame_bytes_max / 2;
        for builder in [&mut self.frame, &mut self.body] {
            if builder.unfinished_data().len() > keep {
                *builder = Builder::new();
            }
        }
        self.packer.tidy(keep);
    }
}

/// How many of the messages may go into one batch, as far as can be said before they are written: one
/// that fills a batch by itself goes alone.
fn batch_length(messages: &[Message]) -> usize {
    let mut bytes = 0;
    let fits = |message: &&Message| {
        let before = bytes;
        bytes += message.bytes_at_least();
        before == 0 || bytes <= BATCH_BYTES_MAX
    };
    messages.iter().take(BATCH_ITEMS_MAX).take_while(fits).count()
}

fn sum_reaches(messages: &[Message], bytes: usize) -> bool {
    let mut sum = 0;
    messages.iter().any(|message| {
        sum += message.bytes_at_least();
        sum >= bytes
    })
}

fn finish(frame: &mut Builder, args: &fb::MessageEnvelopeArgs<'static>) {
    let root = fb::MessageEnvelope::create(frame, args);
    frame.finish_size_prefixed(root, None);
}

/// Writes a whole `Body`: one message, or a batch; returns how many there was room for.
fn write_body(body: &mut Builder, items: &mut Items, messages: &[Message], context: &mut WriteContext<'_>) -> usize {
    body.reset();
    let mut args = fb::BodyArgs::default();
    let taken = match messages {
        [message] => {
            args.message_type = message.kind();
            args.message = Some(message.write(body, context));
            1
        }
        _ => {
            args.batch = Some(write_items(body, items, messages, context));
            items.len()
        }
    };
    let root = fb::Body::create(body, &args);
    body.finish_minimal(root);
    taken
}

/// Writes messages as batch items until there are enough; `items` holds those that were.
fn write_items(
    builder: &mut Builder,
    items: &mut Items,
    messages: &[Message],
    context: &mut WriteContext<'_>,
) -> WIPOffset<flatbuffers::Vector<'static, flatbuffers::ForwardsUOffset<fb::Item<'static>>>> {
    items.clear();
    for message in messages {
        let value = Some(message.write(builder, context));
        items.push(fb::Item::create(builder, &fb::ItemArgs { message_type: message.kind(), message: value }));
        if builder.unfinished_data().len() > BATCH_BYTES_MAX {
            break;
        }
    }
    builder.create_vector(items)
}
