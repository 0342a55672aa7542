//! The fields of a verified table, for what is read of every frame: its vtable is looked up once, not once a field
//! as the generated accessors do. Each read is checked; one that missed, which `verified` rules out, finds nothing.

use flatbuffers::{Table, VOffsetT};

/// A table and its vtable.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    slots: &'a [u8],
}

impl<'a> Fields<'a> {
    #[inline]
    pub(super) fn of(table: Table<'a>) -> Fields<'a> {
        let (bytes, at) = (table.buf(), table.loc());
        let back = read(bytes, at).map_or(0, i32::from_le_bytes);
        let slots = bytes.get(at.wrapping_sub(back as usize)..).unwrap_or_default();
        let length = read(slots, 0).map_or(0, u16::from_le_bytes);
        Fields { bytes, at, slots: slots.get(..usize::from(length)).unwrap_or_default() }
    }

    /// Where that field lies, unless it is absent.
    #[inline]
    fn place(&self, slot: VOffsetT) -> Option<usize> {
        let field = read(self.slots, usize::from(slot)).map_or(0, u16::from_le_bytes);
        (field != 0).then(|| self.at + usize::from(field))
    }

    /// Whether the field is there.
    #[inline]
    pub(super) fn has(&self, slot: VOffsetT) -> bool {
        self.place(slot).is_some()
    }

    /// The bytes of a number, unless it is absent: then it has its default.
    #[inline]
    pub(super) fn number<const N: usize>(&self, slot: VOffsetT) -> Option<[u8; N]> {
        read(self.bytes, self.place(slot)?)
    }

    /// A vector of bytes.
    #[inline]
    pub(super) fn vector(&self, slot: VOffsetT) -> Option<&'a [u8]> {
        let place = self.place(slot)?;
        let at = place.checked_add(u32::from_le_bytes(read(self.bytes, place)?) as usize)?;
        let (length, rest) = self.bytes.get(at..)?.split_first_chunk()?;
        rest.get(..u32::from_le_bytes(*length) as usize)
    }
}

#[inline]
fn read<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.first_chunk().copied()
}
