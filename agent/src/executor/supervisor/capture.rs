//! Output of a task: what comes through the pipe goes into the slot's file, up to the bound.
//!
//! A task is never held up by its output: bytes beyond the bound, or that the disk refuses, are
//! read all the same and counted as dropped. The file is overwritten from its start and never
//! truncated; its length for this attempt is the count, which the supervisor notes beside it.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::super::record::OutputCount;

/// One stream.
#[derive(Debug)]
pub struct Capture {
    pipe: Option<OwnedFd>,
    name: &'static CStr,
    file: Option<OwnedFd>,
    count: OutputCount,
    bytes_max: u64,
    broken: bool,
}

impl Capture {
    /// Reads from `pipe` into the file `name` of the current directory, which is opened only when
    /// there is something to write.
    pub fn new(pipe: OwnedFd, name: &'static CStr, bytes_max: u64) -> Self {
        Self { pipe: Some(pipe), name, file: None, count: OutputCount::default(), bytes_max, broken: false }
    }

    /// The pipe, until its end was seen.
    pub fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// How much came.
    pub fn count(&self) -> OutputCount {
        self.count
    }

    /// Takes what is in the pipe, at most one buffer full. Returns how many bytes came.
    pub fn on_readable(&mut self, scratch: &mut Vec<u8>) -> usize {
        let Some(pipe) = &self.pipe else {
            return 0;
        };
        scratch.clear();
        match rustix::io::read(pipe, rustix::buffer::spare_capacity(scratch)) {
            Ok(0) => {
                self.pipe = None;
                0
            }
            Ok(count) => {
                self.keep(scratch);
                count
            }
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(_) => {
                self.pipe = None;
                0
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = if self.broken { 0 } else { self.bytes_max.saturating_sub(self.count.kept) };
        let fits = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        let mut rest = bytes.get(..fits).unwrap_or_default();
        while !rest.is_empty() {
            match self.write(rest) {
                Ok(written) => {
                    self.count.kept += written as u64;
                    rest = rest.get(written..).unwrap_or_default();
                }
                Err(Errno::INTR) => {}
                Err(_) => {
                    self.broken = true;
                    break;
                }
            }
        }
        self.count.dropped += (rest.len() + bytes.len() - fits) as u64;
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        if self.file.is_none() {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            self.file = Some(openat(CWD, self.name, flags, Mode::RUSR | Mode::WUSR)?);
        }
        match &self.file {
            Some(file) => rustix::io::pwrite(file, bytes, self.count.kept),
            None => Err(Errno::BADF),
        }
    }
}
