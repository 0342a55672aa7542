//! Messages of the moment: what supervisors tell the agent, and what the agent tells them.

use std::time::Duration;

use super::record::{Moment, Report, SlotId, put_moment, put_report, take_moment, take_report};
use super::wire::{Malformed, Reader, Writer};

/// What a supervisor tells the agent. Every message carries its slot and mark.
#[derive(Debug, PartialEq)]
pub(super) enum Notice {
    Started {
        supervisor: u32,
        main: u32,
        started: Moment,
    },
    Report(Report),
    /// The verdict is in the slot.
    Ended {
        /// Slot and mark of the staged attempt that its supervisor starts next.
        next: Option<(SlotId, u64)>,
    },
}

/// What an agent tells a supervisor through the slot's FIFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cancel {
    pub mark: u64,
    pub grace: Duration,
}

impl Notice {
    pub fn encode(&self, slot: SlotId, mark: u64) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u32(slot.0);
        writer.u64(mark);
        match self {
            Self::Started { supervisor, main, started } => {
                writer.u8(1);
                writer.u32(*supervisor);
                writer.u32(*main);
                put_moment(&mut writer, *started);
            }
            Self::Report(report) => {
                writer.u8(2);
                put_report(&mut writer, report);
            }
            Self::Ended { next: None } => writer.u8(3),
            Self::Ended { next: Some((slot, mark)) } => {
                writer.u8(4);
                writer.u32(slot.0);
                writer.u64(*mark);
            }
        }
        writer.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<(SlotId, u64, Self), Malformed> {
        let mut reader = Reader::new(bytes);
        let slot = SlotId(reader.u32()?);
        let mark = reader.u64()?;
        let notice = match reader.u8()? {
            1 => Self::Started { supervisor: reader.u32()?, main: reader.u32()?, started: take_moment(&mut reader)? },
            2 => Self::Report(take_report(&mut reader)?),
            3 => Self::Ended { next: None },
            4 => Self::Ended { next: Some((SlotId(reader.u32()?), reader.u64()?)) },
            _ => return Err(Malformed),
        };
        Ok((slot, mark, notice))
    }
}

impl Cancel {
    /// One atomic message of [`CANCEL_BYTES`].
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u32(CANCEL_MAGIC);
        writer.u32(u32::try_from(self.grace.as_millis()).unwrap_or(u32::MAX));
        writer.u64(self.mark);
        writer.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u32()? != CANCEL_MAGIC {
            return Err(Malformed);
        }
        let grace = Duration::from_millis(u64::from(reader.u32()?));
        Ok(Self { grace, mark: reader.u64()? })
    }
}

/// Size of one message in the FIFO.
pub(super) const CANCEL_BYTES: usize = 16;
// The last byte is the version: the supervisor may be of an older build than the agent.
const CANCEL_MAGIC: u32 = u32::from_le_bytes(*b"fwC\x01");

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_as_they_were_and_pieces_are_refused() {
        let cancel = Cancel { mark: 99, grace: Duration::from_millis(1500) };
        assert_eq!(cancel.encode().len(), CANCEL_BYTES);
        assert_eq!(Cancel::decode(&cancel.encode()), Ok(cancel));
        let metrics = vec![("loss".to_owned(), 0.25)];
        let report = Report { progress: Some(0.5), note: "half".to_owned(), metrics, refused: 2 };
        let started = Notice::Started { supervisor: 1, main: 2, started: Moment { unix_ms: 3, boot_us: 4 } };
        let ended = [Notice::Ended { next: None }, Notice::Ended { next: Some((SlotId(5), 7)) }];
        for notice in [Notice::Report(report), started].into_iter().chain(ended) {
            let bytes = notice.encode(SlotId(4), 99);
            for cut in 0..bytes.len() {
                assert!(Notice::decode(&bytes[..cut]).is_err());
            }
            assert_eq!(Notice::decode(&bytes), Ok((SlotId(4), 99, notice)));
        }
    }
}
