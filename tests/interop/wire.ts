// The envelope as docs/protocol.md describes it, written from that page alone: sealing and opening in TypeScript.
// Only node's crypto and the package flatbuffers. The code of the tables is made by flatc.
//
// Of step 4 of "Opening" only the root table's bounds are checked here, because this runtime has no verifier; whoever
// takes frames from peers that may hold a key and mean harm needs the rest too.

import { createHmac, timingSafeEqual } from "node:crypto";
import { Builder, ByteBuffer } from "flatbuffers";
import { fleetwire as fb } from "./journal.js";

const FRAME_BYTES_MAX = 262_144;
const BODY_BYTES_MAX = 16_777_216;
const BATCH_ITEMS_MAX = 1_024;
const BULK_STREAMS_MAX = 2;
const STALE_AFTER_MS = 5_000n;
const METRICS_MAX = 64;
const METRIC_NAMES_MAX = 1_024;
const METRIC_NAME_BYTES_MAX = 64;
const SIGNATURE_BYTES = 36;
const CHUNK_BYTES = 131_072;
export const CONTROL_STREAM = 0;

/** A frame, or one message of it, that must not be taken; `name` says why. */
export class Refused extends Error {
  constructor(name: string, detail: unknown = "") {
    super(`${name}: ${String(detail)}`);
    this.name = name;
  }
}

export type Message = { kind: fb.SchedulerMessage; message: fb.ItemT["message"] | Refused };
type Holder = { messageType: fb.SchedulerMessage; message: fb.ItemT["message"]; batch: fb.ItemT[] };

const tag = (key: Uint8Array, data: Uint8Array) => createHmac("sha256", key).update(data).digest();
const view = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** Seals messages for one direction of one session. */
export class Sealer {
  private readonly next = new Map<number, bigint>();
  constructor(private readonly key: Uint8Array, private readonly keyId: number) {}

  /** One frame with these messages: alone, or as a batch. */
  seal(nowMs: bigint, messages: Message[], stream = CONTROL_STREAM): Uint8Array {
    const sequence = this.next.get(stream) ?? 0n;
    this.next.set(stream, sequence + 1n);
    const builder = new Builder(1_024);
    // What is created first ends up last.
    const empty = new Uint8Array(SIGNATURE_BYTES);
    view(empty).setUint32(0, this.keyId, true);
    const signature = fb.MessageEnvelope.createSignatureVector(builder, empty);
    const { kind, single, batch } = content(builder, messages);
    fb.MessageEnvelope.startMessageEnvelope(builder);
    fb.MessageEnvelope.addTimestamp(builder, nowMs);
    fb.MessageEnvelope.addStream(builder, stream);
    fb.MessageEnvelope.addSequence(builder, sequence);
    if (single) {
      fb.MessageEnvelope.addMessageType(builder, kind);
      fb.MessageEnvelope.addMessage(builder, single);
    } else fb.MessageEnvelope.addBatch(builder, batch);
    fb.MessageEnvelope.addSignature(builder, signature);
    builder.finishSizePrefixed(fb.MessageEnvelope.endMessageEnvelope(builder));
    const frame = builder.asUint8Array().slice();
    frame.set(tag(this.key, frame.subarray(0, -32)), frame.length - 32);
    return frame;
  }

  /** A body too large for one frame, in pieces on a bulk stream of its own: one frame behind the other. */
  sealBulk(nowMs: bigint, messages: Message[], stream: number): Uint8Array {
    const builder = new Builder(1_024);
    const { kind, single, batch } = content(builder, messages);
    builder.finish(fb.Body.createBody(builder, kind, single, batch));
    const raw = builder.asUint8Array();
    const frames = [];
    for (let from = 0; from < raw.length; from += CHUNK_BYTES) {
      const data = Array.from(raw.subarray(from, from + CHUNK_BYTES));
      const chunk = new fb.ChunkT(BigInt(from), BigInt(raw.length), data, fb.Compression.None, 0);
      frames.push(this.seal(nowMs, [{ kind: fb.SchedulerMessage.Chunk, message: chunk }], stream));
    }
    return Buffer.concat(frames);
  }
}

/** Opens the frames of one direction of one session. */
export class Opener {
  private readonly next = new Map<number, bigint>();
  private readonly bodies = new Map<number, { first: fb.ChunkT; data: number[] }>();
  private readonly ended = new Set<number>();
  private readonly names: string[] = [];
  constructor(private readonly key: Uint8Array, private readonly keyId: number) {}

  /** The messages of a frame; none while a body is not complete. A refused status update is a `Refused`. */
  open(frame: Uint8Array, stream: number, arrivedMs: bigint): Message[] {
    const envelope = this.authentic(frame);
    if (envelope.version !== 1) throw new Refused("Version", envelope.version);
    this.inOrder(envelope, stream);
    const apart = arrivedMs > envelope.timestamp ? arrivedMs - envelope.timestamp : envelope.timestamp - arrivedMs;
    if (stream === CONTROL_STREAM && apart > STALE_AFTER_MS) throw new Refused("Stale", envelope.timestamp);
    const table = fb.MessageEnvelope.getRootAsMessageEnvelope(at(frame, 4));
    const hasBatch = table.batchLength() > 0 || envelope.batch.length > 0;
    const holds = [envelope.messageType !== fb.SchedulerMessage.NONE, envelope.packed !== null, hasBatch];
    if (holds.filter(Boolean).length !== 1) throw new Refused("Content", "exactly one of message, packed and batch");
    const isChunk = envelope.messageType === fb.SchedulerMessage.Chunk;
    if (isChunk !== (stream !== CONTROL_STREAM)) throw new Refused("Content", "chunks on bulk streams alone");
    if (isChunk) return this.piece(envelope.message as fb.ChunkT, stream);
    const { packed } = envelope;
    if (packed) return this.messages(body(decompressed(Uint8Array.from(packed.data), packed.compression, packed.rawLen)));
    return this.messages(envelope);
  }

  /** Steps 1 to 5 of "Opening": nothing is parsed before the tag is right. */
  private authentic(frame: Uint8Array): fb.MessageEnvelopeT {
    if (frame.length < SIGNATURE_BYTES + 8) throw new Refused("TooShort", frame.length);
    if (frame.length > FRAME_BYTES_MAX) throw new Refused("TooLong", frame.length);
    if (view(frame).getUint32(0, true) !== frame.length - 4) throw new Refused("Length", frame.length);
    if (view(frame).getUint32(frame.length - 36, true) !== this.keyId) throw new Refused("KeyId");
    if (!timingSafeEqual(tag(this.key, frame.subarray(0, -32)), frame.subarray(-32))) throw new Refused("Signature");
    within(frame, 4);
    const table = fb.MessageEnvelope.getRootAsMessageEnvelope(at(frame, 4));
    const signature = table.signatureArray();
    const place = signature ? signature.byteOffset - frame.byteOffset : -1;
    if (signature?.length !== SIGNATURE_BYTES || place !== frame.length - SIGNATURE_BYTES) throw new Refused("SignaturePlace");
    return guarded(() => table.unpack());
  }

  private inOrder(envelope: fb.MessageEnvelopeT, stream: number) {
    if (envelope.stream !== stream) throw new Refused("Stream", envelope.stream);
    if (this.ended.has(stream)) throw new Refused("StreamEnded", stream);
    const expected = this.next.get(stream) ?? 0n;
    if (envelope.sequence !== expected) throw new Refused("Sequence", envelope.sequence);
    this.next.set(stream, expected + 1n);
  }

  private piece(chunk: fb.ChunkT, stream: number): Message[] {
    if (!this.bodies.has(stream) && this.bodies.size >= BULK_STREAMS_MAX) throw new Refused("BulkStreams");
    if (chunk.total > BigInt(BODY_BYTES_MAX)) throw new Refused("TooLong", chunk.total);
    const whole = this.bodies.get(stream) ?? { first: chunk, data: [] };
    this.bodies.set(stream, whole);
    const { first, data } = whole;
    const alike = chunk.total === first.total && chunk.compression === first.compression && chunk.rawLen === first.rawLen;
    const after = BigInt(data.length + chunk.data.length);
    if (!alike || chunk.offset !== BigInt(data.length) || !chunk.data.length || after > chunk.total)
      throw new Refused("Chunk", chunk.offset);
    for (const byte of chunk.data) data.push(byte);
    if (after < chunk.total) return [];
    this.bodies.delete(stream);
    this.ended.add(stream);
    const bytes = Uint8Array.from(data);
    const packed = chunk.compression !== fb.Compression.None;
    return this.messages(body(packed ? decompressed(bytes, chunk.compression, chunk.rawLen) : bytes), true);
  }

  /** What a body or an envelope holds: one message or a batch, never a chunk. */
  private messages(holder: Holder, bulk = false): Message[] {
    const single = holder.messageType !== fb.SchedulerMessage.NONE;
    if (single === holder.batch.length > 0) throw new Refused("Content", "one message or a batch");
    const items: Omit<Holder, "batch">[] = single ? [holder] : holder.batch;
    if (items.length > BATCH_ITEMS_MAX) throw new Refused("Content", `a batch of ${items.length}`);
    const isNone = (kind: fb.SchedulerMessage) => kind === fb.SchedulerMessage.NONE || kind === fb.SchedulerMessage.Chunk;
    if (items.some((item) => isNone(item.messageType))) throw new Refused("Content", "an item that is no message");
    return items.map((item) => ({ kind: item.messageType, message: this.checked(item, bulk) }));
  }

  private checked(item: Omit<Holder, "batch">, bulk: boolean): Message["message"] {
    if (item.messageType !== fb.SchedulerMessage.StatusUpdate) return item.message;
    const update = item.message as fb.StatusUpdateT;
    // Definitions stand even if the update is refused.
    for (const definition of update.metricNames) this.define(definition, bulk);
    try {
      this.metrics(update);
    } catch (error) {
      if (error instanceof Refused) return error;
      throw error;
    }
    return update;
  }

  private define({ id, name }: fb.MetricNameT, bulk: boolean) {
    if (bulk || id !== this.names.length || this.names.length >= METRIC_NAMES_MAX) throw new Refused("MetricName", id);
    if (!isName(name)) throw new Refused("MetricName", name);
    this.names.push(String(name));
  }

  private metrics(update: fb.StatusUpdateT) {
    if (fb.TaskStatus[update.status] === undefined) throw new Refused("Status", update.status);
    if (!(update.progress >= 0 && update.progress <= 1)) throw new Refused("Number", update.progress);
    const { metrics, metricIds, metricValues } = update;
    if (metricIds.length !== metricValues.length || metrics.length + metricIds.length > METRICS_MAX)
      throw new Refused("Metrics", "as many values as numbers, and not too many");
    if (metricIds.some((id) => id >= this.names.length)) throw new Refused("Metrics", "a number that was never defined");
    if (metrics.some((metric) => !isName(metric.name))) throw new Refused("Metrics", "a name that is none");
    if (![...metricValues, ...metrics.map((metric) => metric.value)].every(Number.isFinite)) throw new Refused("Number");
  }
}

/** One message alone, several as a batch. The objects' own `pack` would add an empty batch to the one message: an
 * empty vector is there, and one of the two must not be. */
function content(builder: Builder, messages: Message[]) {
  const pack = ({ message }: Message) => (message as { pack(builder: Builder): number }).pack(builder);
  const [only] = messages;
  if (messages.length === 1 && only) return { kind: only.kind, single: pack(only), batch: 0 };
  const items = messages.map(({ kind, message }) => new fb.ItemT(kind, message as fb.ItemT["message"]).pack(builder));
  return { kind: fb.SchedulerMessage.NONE, single: 0, batch: fb.MessageEnvelope.createBatchVector(builder, items) };
}

function isName(name: string | Uint8Array | null): boolean {
  const bytes = Buffer.byteLength(name ?? "");
  return bytes >= 1 && bytes <= METRIC_NAME_BYTES_MAX;
}

function at(bytes: Uint8Array, position: number): ByteBuffer {
  const buffer = new ByteBuffer(bytes);
  buffer.setPosition(position);
  return buffer;
}

/** The root table and its vtable lie within the bytes; this runtime reads beyond them without a word. */
function within(bytes: Uint8Array, start: number) {
  const data = view(bytes);
  const inside = (position: number, length: number) => position >= start && position + length <= bytes.length;
  const root = inside(start, 4) ? start + data.getUint32(start, true) : -1;
  const vtable = inside(root, 4) ? root - data.getInt32(root, true) : -1;
  const fits = inside(vtable, 4) && inside(vtable, data.getUint16(vtable, true)) && inside(root, data.getUint16(vtable + 2, true));
  if (!fits) throw new Refused("Malformed", "the root table");
}

function guarded<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw new Refused("Malformed", error);
  }
}

function body(raw: Uint8Array): fb.BodyT {
  within(raw, 0);
  return guarded(() => fb.Body.getRootAsBody(at(raw, 0)).unpack());
}

/** One LZ4 block (no frame format, no dictionary) of exactly `rawLen` bytes when it is decompressed. */
function decompressed(block: Uint8Array, compression: fb.Compression, rawLen: number): Uint8Array {
  if (compression !== fb.Compression.Lz4Block) throw new Refused("Packed", `compression ${compression}`);
  // No block expands further: refused before anything is allocated.
  if (rawLen > BODY_BYTES_MAX || rawLen > 255 * block.length + 64) throw new Refused("Packed", `${rawLen} bytes`);
  const raw = new Uint8Array(rawLen);
  let from = 0, to = 0;
  const next = () => {
    const byte = block[from++];
    if (byte === undefined) throw new Refused("Packed", "it ends too early");
    return byte;
  };
  const length = (first: number) => {
    let sum = first;
    if (first === 15) for (let more = 255; more === 255; sum += more) more = next();
    return sum;
  };
  for (;;) {
    const token = next();
    const literals = length(token >> 4);
    if (from + literals > block.length || to + literals > rawLen) throw new Refused("Packed", "literals");
    raw.set(block.subarray(from, from + literals), to);
    from += literals;
    to += literals;
    if (from === block.length) break;
    const offset = next() | (next() << 8);
    const match = length(token & 15) + 4;
    if (offset === 0 || offset > to || to + match > rawLen) throw new Refused("Packed", "a match");
    for (let end = to + match; to < end; to++) raw[to] = raw[to - offset] ?? 0;
  }
  if (to !== rawLen) throw new Refused("Packed", `${to} bytes instead of ${rawLen}`);
  return raw;
}
