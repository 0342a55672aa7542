//! Sealing: messages in, frames out (docs/protocol.md#sealing).
//!
//! A frame is written from front to back, to where it is sent from, and the signature vector last. What is needed
//! only while it is written (compression tables, buffers, a builder for rare messages) belongs to the thread, not
//! to the session: it is used again and again, so that nothing is allocated once it has grown to the size of
//! what is sent, and ten thousand idle sessions hold none of it.

use super::{CONTROL_STREAM, Features, VERSION, keys::MacKey, pack::Packer};
use crate::{
    fb,
    limits::*,
    message::{
        Message, MetricNumbers, WriteContext,
        forward::{Kind, Place, Table, Writer},
    },
};
use flatbuffers::FlatBufferBuilder;
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
        let Bench { aside, body, packer } = bench;
        let mut context = WriteContext { features, numbers: &mut numbers, aside };
        write_body(body, std::slice::from_ref(message), &mut context);
        if body.len() > BODY_BYTES_MAX {
            return Err(SealError::TooLarge { found: body.len() });
        }
        let packed = if self.features.has(Features::PACKED) { packer.pack(body) } else { None };
        let raw_len = if packed.is_some() { body.len() as u32 } else { 0 };
        let bytes = packed.unwrap_or(body);
        let mut offset = 0;
        for (sequence, piece) in (0..).zip(bytes.chunks(CHUNK_BYTES)) {
            let content = Content::Message(fb::SchedulerMessage::Chunk);
            let mut frame = self.begin(out, now_ms, stream, sequence, content);
            let mut table = Table::<14, 29>::new();
            table.u64(fb::Chunk::VT_OFFSET, offset);
            table.u64(fb::Chunk::VT_TOTAL, bytes.len() as u64);
            let data = table.child(fb::Chunk::VT_DATA);
            table.u32(fb::Chunk::VT_RAW_LEN, raw_len);
            if raw_len != 0 {
                table.u8(fb::Chunk::VT_COMPRESSION, fb::Compression::Lz4Block.0);
            }
            let chunk = frame.writer.table(frame.content, Kind::Single, table);
            frame.writer.vector(chunk.place(data), piece);
            self.finish(frame);
            offset += piece.len() as u64;
        }
        bench.tidy(self.frame_bytes_max);
        Ok(())
    }

    /// One frame of the control stream, appended; its sequence and its size are the caller's to judge. Returns how
    /// many messages there was room for.
    fn seal_control(&mut self, bench: &mut Bench, now_ms: u64, messages: &[Message], out: &mut Vec<u8>) -> usize {
        let (before, names) = (out.len(), self.numbers.count());
        let packs = self.features.has(Features::PACKED);
        // What surely is large enough is compressed first, and written plainly only if that does not pay.
        let first = packs && sum_reaches(messages, COMPRESS_BYTES_MIN);
        let mut taken = messages.len();
        if first {
            taken = self.pack(bench, messages);
        }
        if !first || bench.packer.packed().is_none() {
            self.numbers.roll_back(names);
            let messages = messages.get(..taken).unwrap_or_default();
            let mut frame = self.begin(out, now_ms, CONTROL_STREAM, self.sequence, Content::of(messages));
            let mut context =
                WriteContext { features: self.features, numbers: &mut self.numbers, aside: &mut bench.aside };
            taken = write_content(&mut frame.writer, frame.content, messages, &mut context);
            let tries = packs && !first && frame.writer.len() >= COMPRESS_BYTES_MIN;
            if tries {
                self.numbers.roll_back(names);
                self.pack(bench, messages.get(..taken).unwrap_or_default());
            }
            if !tries || bench.packer.packed().is_none() {
                self.finish(frame);
                return taken;
            }
            out.truncate(before);
        }
        self.write_packed(bench, now_ms, out);
        taken
    }

    /// Compresses the messages' body, in the bench. Returns how many there was room for.
    fn pack(&mut self, bench: &mut Bench, messages: &[Message]) -> usize {
        let Bench { aside, body, packer } = bench;
        let mut context = WriteContext { features: self.features, numbers: &mut self.numbers, aside };
        let taken = write_body(body, messages, &mut context);
        packer.pack(body);
        taken
    }

    /// One frame with what the bench has compressed.
    fn write_packed(&self, bench: &Bench, now_ms: u64, out: &mut Vec<u8>) {
        let mut frame = self.begin(out, now_ms, CONTROL_STREAM, self.sequence, Content::Packed);
        let mut table = Table::<10, 13>::new();
        table.u32(fb::Packed::VT_RAW_LEN, bench.body.len() as u32);
        let data = table.child(fb::Packed::VT_DATA);
        table.u8(fb::Packed::VT_COMPRESSION, fb::Compression::Lz4Block.0);
        let packed = frame.writer.table(frame.content, Kind::Single, table);
        frame.writer.vector(packed.place(data), bench.packer.packed().unwrap_or_default());
        self.finish(frame);
    }

    // §seal-2
    /// Begins a frame: the envelope's table, whose content is to follow, and then its end.
    fn begin<'o>(&self, out: &'o mut Vec<u8>, now_ms: u64, stream: u32, sequence: u64, content: Content) -> Frame<'o> {
        type Wire = fb::MessageEnvelope<'static>;
        const { assert!(VERSION == 1, "what is absent reads as version 1") };
        let (mut writer, root) = Writer::new(out, true);
        let mut table = Table::<22, 33>::new();
        table.u64(Wire::VT_TIMESTAMP, now_ms);
        table.u64(Wire::VT_SEQUENCE, sequence);
        let signature = table.child(Wire::VT_SIGNATURE);
        let child = match content {
            Content::Message(_) => table.child(Wire::VT_MESSAGE),
            Content::Packed => table.child(Wire::VT_PACKED),
            Content::Batch => table.child(Wire::VT_BATCH),
        };
        table.u32(Wire::VT_STREAM, stream);
        if let Content::Message(kind) = content {
            table.u8(Wire::VT_MESSAGE_TYPE, kind.0);
        }
        let envelope = writer.table(root, Kind::Single, table);
        Frame { content: envelope.place(child), signature: envelope.place(signature), writer }
    }

    // §seal-1 §seal-3
    /// Ends a frame with the signature vector: the key id, and the tag over everything before the tag.
    fn finish(&self, frame: Frame<'_>) {
        let Frame { mut writer, signature, .. } = frame;
        writer.end_frame(signature, self.key_id);
        let tag = self.key.tag(writer.bytes());
        writer.push(tag);
    }
}

/// A frame that is being written.
struct Frame<'o> {
    writer: Writer<'o>,
    /// Where the offset to what it carries lies, and the one to the signature.
    content: Place,
    signature: Place,
}

/// What a frame carries.
#[derive(Clone, Copy)]
enum Content {
    Message(fb::SchedulerMessage),
    Batch,
    Packed,
}

impl Content {
    fn of(messages: &[Message]) -> Content {
        match messages {
            [message] => Content::Message(message.kind()),
            _ => Content::Batch,
        }
    }
}

/// What sealing needs while it works on a frame; holds nothing between two frames.
#[derive(Default)]
struct Bench {
    /// Where rare messages are built.
    aside: FlatBufferBuilder<'static>,
    body: Vec<u8>,
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
        if self.aside.unfinished_data().len() > keep {
            self.aside = FlatBufferBuilder::new();
        }
        if self.body.len() > keep {
            self.body = Vec::new();
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

/// Writes a whole `Body` into `body`: one message, or a batch; returns how many there was room for.
fn write_body(body: &mut Vec<u8>, messages: &[Message], context: &mut WriteContext<'_>) -> usize {
    body.clear();
    let (mut writer, root) = Writer::new(body, false);
    let mut table = Table::<10, 9>::new();
    let content = match Content::of(messages) {
        Content::Message(kind) => {
            let child = table.child(fb::Body::VT_MESSAGE);
            table.u8(fb::Body::VT_MESSAGE_TYPE, kind.0);
            child
        }
        _ => table.child(fb::Body::VT_BATCH),
    };
    let written = writer.table(root, Kind::Single, table);
    write_content(&mut writer, written.place(content), messages, context)
}

/// Writes one message, or several as the items of a batch, until there are enough; returns how many there was room for.
fn write_content(writer: &mut Writer<'_>, place: Place, messages: &[Message], context: &mut WriteContext<'_>) -> usize {
    if let [message] = messages {
        message.write(writer, place, context);
        return 1;
    }
    let items = writer.offsets(place, messages.len());
    let mut taken = 0;
    for message in messages {
        let mut table = Table::<8, 9>::new();
        let child = table.child(fb::Item::VT_MESSAGE);
        table.u8(fb::Item::VT_MESSAGE_TYPE, message.kind().0);
        let item = writer.table(items.place(taken), Kind::Item, table);
        message.write(writer, item.place(child), context);
        taken += 1;
        if writer.len() > BATCH_BYTES_MAX {
            break;
        }
    }
    writer.shorten(items, taken);
    taken
}
