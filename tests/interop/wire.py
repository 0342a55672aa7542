"""The envelope as docs/protocol.md describes it, written from that page alone: sealing and opening in Python.

Only the standard library's hmac, and the packages flatbuffers and lz4. The code of the tables is made by flatc.
What a key holder may do to a reader that has no verifier is caught as what Python raises for it: Malformed.
"""

import hashlib
import hmac
import math
import struct

import flatbuffers
import lz4.block

import journal_generated as fb

FRAME_BYTES_MAX = 262_144
BODY_BYTES_MAX = 16_777_216
BATCH_ITEMS_MAX = 1_024
BULK_STREAMS_MAX = 2
STALE_AFTER_MS = 5_000
METRICS_MAX = 64
METRIC_NAMES_MAX = 1_024
METRIC_NAME_BYTES_MAX = 64
COMPRESS_BYTES_MIN = 1_024
SIGNATURE_BYTES = 36
CHUNK_BYTES = 131_072
CONTROL_STREAM = 0

Kind = fb.SchedulerMessage


class Refused(Exception):
    """A frame, or one message of it, that must not be taken; `name` says why."""

    def __init__(self, name, detail=""):
        super().__init__(f"{name}: {detail}")
        self.name = name


class Sealer:
    """Seals messages for one direction of one session."""

    def __init__(self, key, key_id, packed=False):
        self.key, self.key_id, self.packed = key, key_id, packed
        self.next = {}

    def seal(self, now_ms, messages, stream=CONTROL_STREAM):
        """One frame with these messages (pairs of type and object): alone, or as a batch."""
        envelope = fb.MessageEnvelopeT()
        envelope.timestamp, envelope.stream = now_ms, stream
        envelope.sequence = self.next.get(stream, 0)
        self.next[stream] = envelope.sequence + 1
        content = body_of(messages)
        raw = finished(content) if self.packed else b""
        block = lz4.block.compress(raw, store_size=False) if len(raw) >= COMPRESS_BYTES_MIN else b""
        if block and len(block) <= len(raw) * 7 // 8:
            envelope.packed = fb.PackedT()
            envelope.packed.compression = fb.Compression.Lz4Block
            envelope.packed.rawLen, envelope.packed.data = len(raw), list(block)
        else:
            envelope.messageType, envelope.message, envelope.batch = content.messageType, content.message, content.batch
        return self.sign(envelope)

    def seal_bulk(self, now_ms, messages, stream):
        """A body too large for one frame, in pieces on a bulk stream of its own: one frame behind the other."""
        raw = finished(body_of(messages))
        block = lz4.block.compress(raw, store_size=False)
        data, sealed = (block if len(block) <= len(raw) * 7 // 8 else raw), b""
        for offset in range(0, len(data), CHUNK_BYTES):
            chunk = fb.ChunkT()
            chunk.offset, chunk.total = offset, len(data)
            chunk.data = list(data[offset : offset + CHUNK_BYTES])
            if data is block:
                chunk.compression, chunk.rawLen = fb.Compression.Lz4Block, len(raw)
            sealed += self.seal(now_ms, [(Kind.Chunk, chunk)], stream)
        return sealed

    def sign(self, envelope):
        builder = flatbuffers.Builder(1_024)
        # What is created first ends up last. `Pack` would write the signature where it pleases.
        signature = builder.CreateByteVector(self.key_id.to_bytes(4, "little") + bytes(32))
        builder.FinishSizePrefixed(pack_around(envelope, signature, builder))
        frame = bytearray(builder.Output())
        frame[-32:] = tag(self.key, frame[:-32])
        return bytes(frame)


def pack_around(envelope, signature, builder):
    """The envelope's table, with the signature that lies behind everything else."""
    message = envelope.message.Pack(builder) if envelope.message is not None else None
    packed = envelope.packed.Pack(builder) if envelope.packed is not None else None
    batch = None
    if envelope.batch is not None:
        items = [item.Pack(builder) for item in envelope.batch]
        fb.MessageEnvelopeStartBatchVector(builder, len(items))
        for item in reversed(items):
            builder.PrependUOffsetTRelative(item)
        batch = builder.EndVector()
    fb.MessageEnvelopeStart(builder)
    fb.MessageEnvelopeAddTimestamp(builder, envelope.timestamp)
    fb.MessageEnvelopeAddStream(builder, envelope.stream)
    fb.MessageEnvelopeAddSequence(builder, envelope.sequence)
    if message is not None:
        fb.MessageEnvelopeAddMessageType(builder, envelope.messageType)
        fb.MessageEnvelopeAddMessage(builder, message)
    if packed is not None:
        fb.MessageEnvelopeAddPacked(builder, packed)
    if batch is not None:
        fb.MessageEnvelopeAddBatch(builder, batch)
    fb.MessageEnvelopeAddSignature(builder, signature)
    return fb.MessageEnvelopeEnd(builder)


def body_of(messages):
    body = fb.BodyT()
    if len(messages) == 1:
        body.messageType, body.message = messages[0]
        return body
    body.batch = []
    for kind, message in messages:
        item = fb.ItemT()
        item.messageType, item.message = kind, message
        body.batch.append(item)
    return body


def finished(table):
    builder = flatbuffers.Builder(1_024)
    builder.Finish(table.Pack(builder))
    return bytes(builder.Output())


def tag(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


class Opener:
    """Opens the frames of one direction of one session."""

    def __init__(self, key, key_id):
        self.key, self.key_id = key, key_id
        self.next = {}
        self.bodies = {}
        self.ended = set()
        self.names = []

    def open(self, frame, stream, arrived_ms):
        """The messages of a frame: a list of pairs (type, object), empty while a body is not complete. A status
        update that is refused alone is a pair (type, Refused)."""
        envelope = self.authentic(frame)
        if envelope.version != 1:
            raise Refused("Version", envelope.version)
        self.in_order(envelope, stream)
        if stream == CONTROL_STREAM and abs(arrived_ms - envelope.timestamp) > STALE_AFTER_MS:
            raise Refused("Stale", envelope.timestamp)
        holds = [envelope.message is not None or envelope.messageType != Kind.NONE, envelope.packed, envelope.batch]
        if sum(hold not in (None, False) for hold in holds) != 1:
            raise Refused("Content", "exactly one of message, packed and batch")
        is_chunk = envelope.messageType == Kind.Chunk
        if is_chunk != (stream != CONTROL_STREAM):
            raise Refused("Content", "chunks on bulk streams, and nothing else there")
        if is_chunk:
            return self.piece(envelope.message, stream)
        if envelope.packed is not None:
            return self.messages(parsed_body(unpacked(envelope.packed)))
        return self.messages(envelope)

    def authentic(self, frame):
        """Steps 1 to 5 of "Opening": nothing is parsed before the tag is right."""
        if len(frame) < SIGNATURE_BYTES + 8:
            raise Refused("TooShort", len(frame))
        if len(frame) > FRAME_BYTES_MAX:
            raise Refused("TooLong", len(frame))
        if int.from_bytes(frame[:4], "little") != len(frame) - 4:
            raise Refused("Length", len(frame))
        if int.from_bytes(frame[-36:-32], "little") != self.key_id:
            raise Refused("KeyId")
        if not hmac.compare_digest(tag(self.key, frame[:-32]), frame[-32:]):
            raise Refused("Signature")
        table = guarded(lambda: fb.MessageEnvelope.GetRootAs(frame, 4))
        field = guarded(lambda: table._tab.Offset(12))
        length = guarded(lambda: table.SignatureLength()) if field else 0
        if length != SIGNATURE_BYTES or table._tab.Vector(field) != len(frame) - SIGNATURE_BYTES:
            raise Refused("SignaturePlace")
        return guarded(lambda: fb.MessageEnvelopeT.InitFromObj(table))

    def in_order(self, envelope, stream):
        if envelope.stream != stream:
            raise Refused("Stream", envelope.stream)
        if stream in self.ended:
            raise Refused("StreamEnded", stream)
        expected = self.next.get(stream, 0)
        if envelope.sequence != expected:
            raise Refused("Sequence", envelope.sequence)
        self.next[stream] = expected + 1

    def piece(self, chunk, stream):
        if stream not in self.bodies and len(self.bodies) >= BULK_STREAMS_MAX:
            raise Refused("BulkStreams")
        if chunk.total > BODY_BYTES_MAX:
            raise Refused("TooLong", chunk.total)
        first, data = self.bodies.setdefault(stream, (chunk, bytearray()))
        alike = (chunk.total, chunk.compression, chunk.rawLen) == (first.total, first.compression, first.rawLen)
        piece = bytes(chunk.data) if chunk.data is not None else b""
        if not alike or chunk.offset != len(data) or not piece or len(data) + len(piece) > chunk.total:
            raise Refused("Chunk", chunk.offset)
        data += piece
        if len(data) < chunk.total:
            return []
        del self.bodies[stream]
        self.ended.add(stream)
        if chunk.compression == fb.Compression.None_:
            return self.messages(parsed_body(bytes(data)), bulk=True)
        return self.messages(parsed_body(decompressed(bytes(data), chunk.compression, chunk.rawLen)), bulk=True)

    def messages(self, holder, bulk=False):
        """What a body or an envelope holds: one message or a batch, never a chunk."""
        if (holder.messageType != Kind.NONE) == (holder.batch is not None):
            raise Refused("Content", "one message or a batch")
        items = [holder] if holder.batch is None else holder.batch
        if not 1 <= len(items) <= BATCH_ITEMS_MAX:
            raise Refused("Content", f"a batch of {len(items)}")
        if any(item.messageType in (Kind.NONE, Kind.Chunk) for item in items):
            raise Refused("Content", "an item that is no message")
        return [(item.messageType, self.checked(item, bulk)) for item in items]

    def checked(self, item, bulk):
        if item.messageType != Kind.StatusUpdate:
            return item.message
        update = item.message
        # Definitions stand even if the update is refused.
        self.define(update.metricNames or [], bulk)
        try:
            self.metrics(update)
        except Refused as refused:
            return refused
        return update

    def define(self, definitions, bulk):
        for definition in definitions:
            name = definition.name or b""
            if bulk or definition.id != len(self.names) or len(self.names) >= METRIC_NAMES_MAX:
                raise Refused("MetricName", definition.id)
            if not 1 <= len(name) <= METRIC_NAME_BYTES_MAX:
                raise Refused("MetricName", name)
            self.names.append(name)

    def metrics(self, update):
        if not 0 <= update.status <= 7:
            raise Refused("Status", update.status)
        if not 0.0 <= update.progress <= 1.0:
            raise Refused("Number", update.progress)
        named = update.metrics or []
        ids = list(update.metricIds) if update.metricIds is not None else []
        values = list(update.metricValues) if update.metricValues is not None else []
        if len(ids) != len(values) or len(named) + len(ids) > METRICS_MAX:
            raise Refused("Metrics", "as many values as numbers, and not too many")
        if any(number >= len(self.names) for number in ids):
            raise Refused("Metrics", "a number that was never defined")
        if any(not 1 <= len(metric.name or b"") <= METRIC_NAME_BYTES_MAX for metric in named):
            raise Refused("Metrics", "a name that is none")
        if not all(math.isfinite(value) for value in values + [metric.value for metric in named]):
            raise Refused("Number", "a metric")


def guarded(read):
    """What a reader without a verifier makes of bytes that are no FlatBuffer."""
    try:
        return read()
    except Refused:
        raise
    except (struct.error, IndexError, ValueError, TypeError, AttributeError, OverflowError, AssertionError) as error:
        raise Refused("Malformed", error) from error


def parsed_body(raw):
    return guarded(lambda: fb.BodyT.InitFromPackedBuf(raw))


def unpacked(packed):
    data = bytes(packed.data) if packed.data is not None else b""
    return decompressed(data, packed.compression, packed.rawLen)


def decompressed(block, compression, raw_len):
    if compression != fb.Compression.Lz4Block:
        raise Refused("Packed", f"compression {compression}")
    # No block expands further: refused before anything is allocated.
    if raw_len > BODY_BYTES_MAX or raw_len > 255 * len(block) + 64:
        raise Refused("Packed", f"{raw_len} bytes")
    try:
        raw = lz4.block.decompress(block, uncompressed_size=raw_len)
    except lz4.block.LZ4BlockError as error:
        raise Refused("Packed", error) from error
    if len(raw) != raw_len:
        raise Refused("Packed", f"{len(raw)} bytes instead of {raw_len}")
    return raw
