//! A request as its supervisor reads it: in place, with nothing left to decide.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::super::record::{AttemptKey, SlotId};
use super::super::wire::{Malformed, Reader};
use super::{InlineFile, ORDER_VERSION};

/// A request as the supervisor reads it, in place.
#[derive(Debug)]
pub(in crate::executor) struct Order<'a> {
    pub slot: SlotId,
    pub mark: u64,
    pub attempt: u32,
    pub task_id: &'a str,
    /// 0 = none.
    pub timeout_us: u64,
    pub grace_us: u64,
    pub output_bytes_max: u64,
    /// 0 = never.
    pub unheard_us: u64,
    /// When the scheduler was heard last before this was asked for.
    pub heard_us: u64,
    /// The boot of which the cell must tell.
    pub boot: &'a [u8],
    /// Where it is read again when the scheduler was heard.
    pub heard_path: &'a Path,
    pub result_path: &'a str,
    pub command: &'a str,
    pub programs: Vec<&'a std::ffi::CStr>,
    pub arguments: Vec<&'a std::ffi::CStr>,
    pub environment: Vec<&'a std::ffi::CStr>,
    pub files: Vec<InlineFile<'a>>,
}

/// Slot and mark of a request, from its first [`HEADER_BYTES`].
pub(in crate::executor) fn header(bytes: &[u8]) -> Result<(SlotId, u64), Malformed> {
    let mut reader = Reader::new(bytes);
    if reader.u32()? != ORDER_VERSION {
        return Err(Malformed);
    }
    Ok((SlotId(reader.u32()?), reader.u64()?))
}

/// Version, slot and mark.
pub(in crate::executor) const HEADER_BYTES: usize = 16;

impl<'a> Order<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u32()? != ORDER_VERSION {
            return Err(Malformed);
        }
        let slot = SlotId(reader.u32()?);
        let mark = reader.u64()?;
        let attempt = reader.u32()?;
        let task_id = reader.text()?;
        let timeout_us = reader.u64()?;
        let grace_us = reader.u64()?;
        let output_bytes_max = reader.u64()?;
        let unheard_us = reader.u64()?;
        let heard_us = reader.u64()?;
        let boot = reader.bytes()?;
        let heard_path = Path::new(std::ffi::OsStr::from_bytes(reader.bytes()?));
        let result_path = reader.c_text()?.to_str().map_err(|_| Malformed)?;
        let command = reader.text()?;
        let programs = c_texts(&mut reader)?;
        let arguments = c_texts(&mut reader)?;
        let environment = c_texts(&mut reader)?;
        let count = reader.count()?;
        let mut files = Vec::with_capacity(count);
        for _ in 0..count {
            let path = reader.c_text()?.to_str().map_err(|_| Malformed)?;
            let executable = reader.u8()? != 0;
            files.push(InlineFile { path, executable, data: reader.bytes()? });
        }
        Ok(Self {
            slot,
            mark,
            attempt,
            task_id,
            timeout_us,
            grace_us,
            output_bytes_max,
            unheard_us,
            heard_us,
            boot,
            heard_path,
            result_path,
            command,
            programs,
            arguments,
            environment,
            files,
        })
    }

    pub fn key(&self) -> AttemptKey {
        AttemptKey { task_id: self.task_id.to_owned(), attempt: self.attempt }
    }
}

fn c_texts<'a>(reader: &mut Reader<'a>) -> Result<Vec<&'a std::ffi::CStr>, Malformed> {
    let count = reader.count()?;
    let mut texts = Vec::with_capacity(count);
    for _ in 0..count {
        texts.push(reader.c_text()?);
    }
    Ok(texts)
}
