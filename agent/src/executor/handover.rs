//! A request on its way: its bytes, the slot's lock, and a memory file where it is large.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use super::limits::REQUEST_INLINE_BYTES_MAX;
use super::request::HEADER_BYTES;

/// What came with a request.
#[derive(Debug)]
pub(super) struct Received {
    /// How many bytes of it are in the buffer: all, or its header where there is a memory file.
    pub bytes: usize,
    /// The slot's lock.
    pub lock: Option<OwnedFd>,
    /// The whole of a large request.
    pub memory: Option<OwnedFd>,
}

/// Sends a request with its slot's lock; a large one in a memory file.
pub(super) fn send_request(socket: impl AsFd, record: &OwnedFd, bytes: &[u8]) -> Result<(), Errno> {
    if bytes.len() <= REQUEST_INLINE_BYTES_MAX {
        return send_files(socket, bytes, &[record]);
    }
    let memory = memfd_create("fleetwire-request", MemfdFlags::CLOEXEC)?;
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        // Written at a position, so that the reader's own position is still the start.
        done += rustix::io::pwrite(&memory, rest, done as u64)?;
    }
    send_files(socket, bytes.get(..HEADER_BYTES).unwrap_or_default(), &[record, &memory])
}

/// Sends bytes with up to two descriptors.
pub(super) fn send_files(socket: impl AsFd, bytes: &[u8], files: &[&OwnedFd]) -> Result<(), Errno> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
    control.push(SendAncillaryMessage::ScmRights(&files));
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?;
    Ok(())
}

/// Receives the next message. `None`: the other end is closed.
pub(super) fn receive(socket: impl AsFd, buffer: &mut [u8], flags: RecvFlags) -> Result<Option<Received>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags | RecvFlags::CMSG_CLOEXEC)?;
    if message.bytes == 0 {
        return Ok(None);
    }
    let mut files = control.drain().filter_map(|part| match part {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    let mut files = files.next().into_iter().flatten();
    Ok(Some(Received { bytes: message.bytes, lock: files.next(), memory: files.next() }))
}
