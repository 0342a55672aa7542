//! A writer of FlatBuffers from front to back, straight into the bytes that are sent.
//!
//! The generated builder works from back to front in a buffer of its own, because it does not know what is yet to come;
//! what it made must then be copied to where it is sent from. Here parents come before their children, as offsets
//! demand, and an offset is filled in when its child is begun. A child that is large is copied once, to
//! its place, and a frame grows behind the one before it.
//!
//! Places are counted from the FlatBuffer's first byte, the length prefix included. A table whose largest field has 8
//! bytes begins 4 behind a multiple of 8, so that what follows its offset to the vtable is aligned. Tables of one
//! kind share the vtable of the last one, if theirs is the same. What is written is held against the generated code by
//! `common/tests/writing.rs`.

use crate::envelope::{SIGNATURE_BYTES, keys::TAG_BYTES};

/// Where a FlatBuffer is being written.
#[derive(Debug)]
pub(crate) struct Writer<'o> {
    out: &'o mut Vec<u8>,
    /// Where it begins in `out`.
    start: usize,
    /// The last vtable of each kind of table: the fields that it has, and where it lies.
    vtables: [(u32, u32); KINDS],
}

/// The kinds of tables whose vtables are shared: those that a buffer may have several of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum Kind {
    /// At most one of it is in a buffer.
    Single,
    Item,
    Assignment,
    Resources,
    Custom,
    Pair,
    File,
    Status,
    Metric,
    MetricName,
    End,
    Usage,
    Heartbeat,
    Acceptance,
    Cancellation,
    Ack,
    LogChunk,
    SubmitJob,
}

const KINDS: usize = Kind::SubmitJob as usize + 1;

/// Where an offset lies that is not filled in yet.
#[derive(Clone, Copy, Debug)]
#[must_use = "an offset that stays empty leads to itself"]
pub(crate) struct Place(usize);

impl<'o> Writer<'o> {
    /// Begins a FlatBuffer behind what `out` holds, without or with room for a length prefix. Returns the place of the
    /// offset to its root table.
    pub(crate) fn new(out: &'o mut Vec<u8>, prefixed: bool) -> (Writer<'o>, Place) {
        let start = out.len();
        let root = if prefixed { 4 } else { 0 };
        let mut writer = Writer { out, start, vtables: [(0, 0); KINDS] };
        writer.push_some([0; 8], root + 4);
        (writer, Place(root))
    }

    /// How many bytes there are so far.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.out.len() - self.start
    }

    /// What is written so far.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.out.get(self.start..).unwrap_or_default()
    }

    /// Appends bytes that nothing leads to.
    #[inline]
    pub(crate) fn push<const N: usize>(&mut self, bytes: [u8; N]) {
        self.out.extend_from_slice(&bytes);
    }

    /// Appends the first `length` of these bytes. Copying all of them and cutting is faster than copying a number that
    /// is known only when it runs.
    #[inline]
    fn push_some<const N: usize>(&mut self, bytes: [u8; N], length: usize) {
        let after = self.out.len() + length;
        self.out.extend_from_slice(&bytes);
        self.out.truncate(after);
    }

    /// Appends zeros until what comes `ahead` bytes from here is aligned, to 8 at most.
    #[inline]
    fn align(&mut self, alignment: usize, ahead: usize) {
        let missing = (self.len() + ahead).wrapping_neg() & (alignment - 1);
        self.push_some([0; 8], missing);
    }

    #[inline]
    fn set(&mut self, at: usize, value: u32) {
        if let Some(place) = self.out.get_mut(self.start + at..).and_then(<[u8]>::first_chunk_mut) {
            *place = value.to_le_bytes();
        }
    }

    /// Fills an offset in: what it leads to begins at `target`, behind it.
    #[inline]
    fn link(&mut self, place: Place, target: usize) {
        debug_assert!(target > place.0, "offsets lead forward");
        self.set(place.0, target.wrapping_sub(place.0) as u32);
    }

    /// Writes a table, where `place` leads; the offsets in it are to be filled in.
    #[inline]
    pub(crate) fn table<const V: usize, const I: usize>(
        &mut self,
        place: Place,
        kind: Kind,
        mut table: Table<V, I>,
    ) -> Written {
        // Those with the same fields have them in the same places.
        let last = self.vtables.get(kind as usize).copied().unwrap_or_default();
        let vtable = if kind != Kind::Single && last.0 == table.fields && last.1 != 0 {
            last.1 as usize
        } else {
            self.align(2, 0);
            let vtable = self.len();
            let length = 4 + 2 * (u32::BITS - table.fields.leading_zeros()) as usize;
            table.slot(0, length);
            table.slot(2, table.end);
            self.push_some(table.vtable, length);
            if let Some(last) = self.vtables.get_mut(kind as usize) {
                *last = (table.fields, vtable as u32);
            }
            vtable
        };
        self.align(table.alignment, 4);
        let at = self.len();
        if let Some(back) = table.inline.first_chunk_mut() {
            *back = (at.wrapping_sub(vtable) as u32).to_le_bytes();
        }
        self.push_some(table.inline, table.end);
        self.link(place, at);
        Written(at)
    }

    /// Writes a vector of bytes.
    #[inline]
    pub(crate) fn vector(&mut self, place: Place, bytes: &[u8]) {
        self.begin_vector(place, bytes.len(), 4);
        self.out.extend_from_slice(bytes);
    }

    /// Writes a vector of `count` numbers, given as their bytes.
    #[inline]
    pub(crate) fn numbers<const N: usize>(
        &mut self,
        place: Place,
        count: usize,
        numbers: impl Iterator<Item = [u8; N]>,
    ) {
        self.begin_vector(place, count, N.max(4));
        let at = self.out.len();
        self.out.resize(at + N * count, 0);
        let (places, _) = self.out.get_mut(at..).unwrap_or_default().as_chunks_mut();
        for (place, number) in places.iter_mut().zip(numbers) {
            *place = number;
        }
    }

    #[inline]
    fn begin_vector(&mut self, place: Place, count: usize, alignment: usize) {
        self.align(alignment, 4);
        self.link(place, self.len());
        self.push((count as u32).to_le_bytes());
    }

    /// Writes the signature vector, with which a frame ends, up to its tag, and sets the length prefix.
    #[inline]
    pub(crate) fn end_frame(&mut self, place: Place, key_id: u32) {
        self.align(4, 0);
        self.link(place, self.len());
        self.push((SIGNATURE_BYTES as u32).to_le_bytes());
        self.push(key_id.to_le_bytes());
        self.set(0, (self.len() + TAG_BYTES - 4) as u32);
    }

    /// Writes a text, and the zero byte behind it.
    #[inline]
    pub(crate) fn text(&mut self, place: Place, text: &str) {
        self.vector(place, text.as_bytes());
        self.out.push(0);
    }

    /// Writes a text of ASCII, given with the zero byte behind it.
    #[inline]
    pub(crate) fn ascii(&mut self, place: Place, text_and_zero: &[u8]) {
        self.begin_vector(place, text_and_zero.len() - 1, 4);
        self.out.extend_from_slice(text_and_zero);
    }

    /// Writes a vector of offsets, all to be filled in.
    pub(crate) fn offsets(&mut self, place: Place, count: usize) -> Offsets {
        self.align(4, 0);
        let at = self.len();
        self.link(place, at);
        self.push((count as u32).to_le_bytes());
        self.out.resize(self.out.len() + 4 * count, 0);
        Offsets(at)
    }

    /// Makes a vector of offsets shorter. The room of those that it loses stays empty: nothing leads there.
    pub(crate) fn shorten(&mut self, offsets: Offsets, count: usize) {
        self.set(offsets.0, count as u32);
    }

    /// Copies a FlatBuffer without length prefix that was built elsewhere: `place` leads to its root.
    pub(crate) fn embed(&mut self, place: Place, built: &[u8]) {
        let Some((root, rest)) = built.split_first_chunk() else { return };
        // Its own offset to its root stays behind; all else keeps its alignment.
        self.align(8, 4);
        self.link(place, self.len() + (u32::from_le_bytes(*root) as usize).wrapping_sub(root.len()));
        self.out.extend_from_slice(rest);
    }
}

/// A table that lies in the buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written(usize);

impl Written {
    /// The place of a child's offset.
    #[inline]
    pub(crate) fn place(self, child: Child) -> Place {
        Place(self.0 + child.0)
    }
}

/// A vector of offsets that lies in the buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offsets(usize);

impl Offsets {
    /// The place of one of them.
    pub(crate) fn place(self, number: usize) -> Place {
        Place(self.0 + 4 + 4 * number)
    }
}

/// Where a child's offset lies in its table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Child(usize);

/// A table that is being filled: the largest fields first, so that each is aligned. Absent fields take no room, and
/// what has its default value, zero, is absent.
#[derive(Debug)]
pub(crate) struct Table<const V: usize, const I: usize> {
    vtable: [u8; V],
    /// Bit `n`: it has the field of id `n`.
    fields: u32,
    inline: [u8; I],
    end: usize,
    alignment: usize,
}

impl<const V: usize, const I: usize> Table<V, I> {
    /// An empty table with room for fields up to a vtable of `V` bytes, and for `I` bytes of fields, the offset to
    /// the vtable included.
    #[inline]
    pub(crate) fn new() -> Table<V, I> {
        Table { vtable: [0; V], fields: 0, inline: [0; I], end: 4, alignment: 4 }
    }

    #[inline]
    fn slot(&mut self, slot: usize, value: usize) {
        debug_assert!(slot + 2 <= V, "a vtable too small");
        if let Some(place) = self.vtable.get_mut(slot..).and_then(<[u8]>::first_chunk_mut) {
            *place = (value as u16).to_le_bytes();
        }
    }

    /// A field of `N` bytes, whatever they are.
    #[inline]
    pub(crate) fn put<const N: usize>(&mut self, slot: u16, bytes: [u8; N]) -> usize {
        let at = self.end;
        debug_assert!(at + N <= I, "a table too small");
        debug_assert!((at + 4).is_multiple_of(N.min(8)), "smaller fields come later");
        if let Some(place) = self.inline.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
            *place = bytes;
        }
        self.slot(slot.into(), at);
        self.fields |= 1 << (slot / 2 - 2);
        if N >= 8 {
            self.alignment = 8;
        }
        self.end = at + N;
        at
    }

    /// A number of 64 bits.
    #[inline]
    pub(crate) fn u64(&mut self, slot: u16, value: u64) {
        if value != 0 {
            self.put(slot, value.to_le_bytes());
        }
    }

    /// A number of 32 bits.
    #[inline]
    pub(crate) fn u32(&mut self, slot: u16, value: u32) {
        if value != 0 {
            self.put(slot, value.to_le_bytes());
        }
    }

    /// A number of 8 bits.
    #[inline]
    pub(crate) fn u8(&mut self, slot: u16, value: u8) {
        if value != 0 {
            self.put(slot, [value]);
        }
    }

    /// The offset to a child.
    #[inline]
    pub(crate) fn child(&mut self, slot: u16) -> Child {
        Child(self.put(slot, [0; 4]))
    }

    /// The offset to a child, if it has one.
    #[inline]
    pub(crate) fn child_if(&mut self, there: bool, slot: u16) -> Option<Child> {
        there.then(|| self.child(slot))
    }
}
