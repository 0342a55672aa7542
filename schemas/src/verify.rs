//! The verification pass for what comes off the wire or from a journal: envelopes, bodies, jobs and facts, before anyone
//! reads them.
//!
//! It checks what flatc's generated verifier checks, and accepts nothing that this refuses; it takes a
//! quarter of its time, for it looks at a table's vtable once, keeps its books per table instead of per
//! byte read, and never prepares an error's words. What it refuses, the generated verifier judges: that
//! one's yes counts, and its no has words. So the two may differ in one direction only, and that costs time alone.
//!
//! One function per table stands in `verifier_generated.rs`, made from the generated verifier's own lines by
//! `schemas/regenerate.mjs`; here is what they call. Where the books are kept more coarsely than there, they
//! are kept too high. `common/tests/verifier.rs` and `fuzz/fuzz_targets/verifier.rs` hold the two against each other.

use crate as fb;
use flatbuffers::VerifierOptions;

#[path = "verifier_generated.rs"]
mod tables;

pub use tables::DEPTH;

/// The envelope in a frame, if the pass finds nothing wrong with it under these bounds.
#[expect(unsafe_code, reason = "a second verifier needs the accessors that do not run the first")]
pub fn envelope<'b>(options: &VerifierOptions, frame: &'b [u8]) -> Option<fb::MessageEnvelope<'b>> {
    let mut verifier = Verifier::new(options, frame)?;
    let root = verifier.follow(4)?;
    tables::message_envelope(&mut verifier, root)?;
    // SAFETY: what the accessors rely on was checked just now, for this type, in these bytes, which cannot
    // change while they are borrowed: that each offset which they follow for a known field ends where a
    // table, vector or text of its type lies within the bytes, each vtable and each inline field within
    // them too, and that texts are UTF-8. `Verifier`'s functions say where; the differential tests and the
    // fuzz target show that the generated verifier, on which the safe accessors rest otherwise, says yes too.
    Some(unsafe { flatbuffers::size_prefixed_root_unchecked::<fb::MessageEnvelope<'b>>(frame) })
}

/// The body in these bytes, if the pass finds nothing wrong with it under these bounds.
pub fn body<'b>(options: &VerifierOptions, bytes: &'b [u8]) -> Option<fb::Body<'b>> {
    root::<fb::Body<'b>>(options, bytes, tables::body)
}

/// The job in these bytes, if the pass finds nothing wrong with it under these bounds.
pub fn job_spec<'b>(options: &VerifierOptions, bytes: &'b [u8]) -> Option<fb::JobSpec<'b>> {
    root::<fb::JobSpec<'b>>(options, bytes, tables::job_spec)
}

/// The fact in these bytes, if the pass finds nothing wrong with it under these bounds.
pub fn fact_record<'b>(options: &VerifierOptions, bytes: &'b [u8]) -> Option<fb::FactRecord<'b>> {
    root::<fb::FactRecord<'b>>(options, bytes, tables::fact_record)
}

/// What begins at the bytes' root, if `pass`, which is the one for `T`, finds nothing wrong with it.
#[expect(unsafe_code, reason = "a second verifier needs the accessors that do not run the first")]
fn root<'b, T: flatbuffers::Follow<'b> + 'b>(
    options: &VerifierOptions,
    bytes: &'b [u8],
    pass: fn(&mut Verifier<'_>, usize) -> Option<()>,
) -> Option<T::Inner> {
    let mut verifier = Verifier::new(options, bytes)?;
    let root = verifier.follow(0)?;
    pass(&mut verifier, root)?;
    // SAFETY: as for `envelope`; the three callers stand above, each with its own type's pass.
    Some(unsafe { flatbuffers::root_unchecked::<T>(bytes) })
}

/// The bytes, and how much of the bounds is left.
struct Verifier<'b> {
    bytes: &'b [u8],
    tables_left: usize,
    /// Of the apparent size: what the buffer would measure if nothing in it were shared.
    apparent_left: usize,
}

impl<'b> Verifier<'b> {
    fn new(options: &VerifierOptions, bytes: &'b [u8]) -> Option<Verifier<'b>> {
        // No table can lie deeper than the schemas are, so depth is not counted.
        if options.max_depth < DEPTH || options.ignore_missing_null_terminator {
            return None;
        }
        // The root's offset counts 4.
        let apparent_left = options.max_apparent_size.checked_sub(4)?;
        Some(Verifier { bytes, tables_left: options.max_tables, apparent_left })
    }

    /// Reads a 32-bit number at a place that must be aligned and inside.
    #[inline]
    fn read_u32(&self, at: usize) -> Option<u32> {
        if !at.is_multiple_of(4) {
            return None;
        }
        self.bytes.get(at..at.checked_add(4)?)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
    }

    #[inline]
    fn read_u16(&self, at: usize) -> Option<u16> {
        if !at.is_multiple_of(2) {
            return None;
        }
        self.bytes.get(at..at.checked_add(2)?)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
    }

    /// Where the offset at a place leads.
    #[inline]
    fn follow(&self, at: usize) -> Option<usize> {
        at.checked_add(self.read_u32(at)? as usize)
    }

    #[inline]
    fn count(&mut self, bytes: usize) -> Option<()> {
        self.apparent_left = self.apparent_left.checked_sub(bytes)?;
        Some(())
    }

    /// Begins a table whose fields have `inline` bytes together.
    #[inline]
    fn table(&mut self, at: usize, inline: usize) -> Option<Table<'b>> {
        let back = i64::from(self.read_u32(at)?.cast_signed());
        let vtable = usize::try_from(i64::try_from(at).ok()? - back).ok()?;
        let length = usize::from(self.read_u16(vtable)?);
        if !length.is_multiple_of(2) {
            return None;
        }
        let slots = self.bytes.get(vtable..)?.get(..length)?;
        self.tables_left = self.tables_left.checked_sub(1)?;
        // The offset to the vtable and its length, the vtable and each of its slots that is read, all fields.
        self.count(6 + 2 * length + inline)?;
        Some(Table { at, slots, end: 0, askew: 0 })
    }

    /// A vector of `size`-byte elements, all of them inside.
    #[inline]
    fn elements(&mut self, at: usize, size: usize, alignment: usize) -> Option<&'b [u8]> {
        let length = self.read_u32(at)? as usize;
        let start = at.checked_add(4)?;
        if !start.is_multiple_of(alignment) {
            return None;
        }
        let bytes = self.bytes.get(start..)?.get(..length.checked_mul(size)?)?;
        self.count(4 + bytes.len())?;
        Some(bytes)
    }

    #[inline]
    fn vector(&mut self, at: usize, size: usize, alignment: usize) -> Option<()> {
        self.elements(at, size, alignment).map(|_| ())
    }

    /// A text: UTF-8, and a zero byte after it.
    #[inline]
    fn text(&mut self, at: usize) -> Option<()> {
        let text = self.elements(at, 1, 1)?;
        if self.bytes.get(at + 4 + text.len()) != Some(&0) {
            return None;
        }
        // Most are ASCII, which is found out several times faster, and of a short one in the word that it begins.
        let ascii = match self.bytes.get(at + 4..).and_then(<[u8]>::first_chunk) {
            Some(word) if text.len() < 8 => {
                let text = u64::from_le_bytes(*word).checked_shl(64 - 8 * text.len() as u32);
                text.unwrap_or(0) & 0x8080_8080_8080_8080 == 0
            }
            _ => text.is_ascii(),
        };
        (ascii || std::str::from_utf8(text).is_ok()).then_some(())
    }

    /// A vector of offsets, and what each of them leads to.
    #[inline]
    fn each(&mut self, at: usize, check: impl Fn(&mut Self, usize) -> Option<()>) -> Option<()> {
        let offsets = self.elements(at, 4, 4)?;
        // Each counts once more when it is followed.
        self.count(offsets.len())?;
        let (offsets, _) = offsets.as_chunks::<4>();
        let mut place = at + 4;
        for offset in offsets {
            check(self, place.checked_add(u32::from_le_bytes(*offset) as usize)?)?;
            place += 4;
        }
        Some(())
    }
}

/// A table whose vtable is inside. Its inline fields are noted as they are met, and judged together.
struct Table<'b> {
    at: usize,
    /// The vtable.
    slots: &'b [u8],
    /// Where its last inline field ends, from the table's beginning.
    end: usize,
    /// Not zero if a field was not aligned.
    askew: usize,
}

impl Table<'_> {
    /// Where the field of that slot lies, from the table's beginning; 0 = absent.
    #[inline]
    fn slot(&self, slot: usize) -> usize {
        self.slots.get(slot..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| usize::from(u16::from_le_bytes(*bytes)))
    }

    /// A field of `size` bytes in the table itself.
    #[inline]
    fn inline(&mut self, slot: usize, size: usize, alignment: usize) {
        let field = self.slot(slot);
        if field != 0 {
            self.end = self.end.max(field + size);
            self.askew |= (self.at + field) & (alignment - 1);
        }
    }

    /// Where the offset in a slot leads, if there is one. `None` inside `Some` is an absent field.
    // Out of line it would keep the whole table in memory.
    #[inline(always)]
    fn offset(&self, verifier: &Verifier<'_>, slot: usize) -> Option<Option<usize>> {
        match self.slot(slot) {
            0 => Some(None),
            field => verifier.follow(self.at + field).map(Some),
        }
    }

    /// A union: its kind, and the place of the offset to its value. Both are there, or neither.
    #[inline]
    fn union(&self, verifier: &Verifier<'_>, kind: usize, value: usize) -> Option<Option<(u8, usize)>> {
        match (self.slot(kind), self.slot(value)) {
            (0, 0) => Some(None),
            (0, _) | (_, 0) => None,
            (kind, value) => Some(Some((*verifier.bytes.get(self.at + kind)?, self.at + value))),
        }
    }

    /// The judgement of the inline fields.
    #[inline]
    fn finish(self, verifier: &Verifier<'_>) -> Option<()> {
        let aligned = self.askew == 0;
        (aligned && self.at + self.end <= verifier.bytes.len()).then_some(())
    }
}
