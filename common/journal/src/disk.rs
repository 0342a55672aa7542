//! What the journal needs of a disk: one flat folder of files that are written in place.
//!
//! Synchronous and small, so that a real folder, a simulated disk and a faulty one are all easy.

use std::fmt;
use thiserror::Error;

/// A folder of files. Handles are cheap; all methods take `&self`.
pub trait Disk {
    /// An open file. It stays usable when the file is renamed.
    type File;

    /// The names of all files, in any order.
    fn names(&self) -> Result<Vec<String>, DiskError>;
    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> Result<Self::File, DiskError>;
    /// Creates a file of `bytes` zeros, with its space allocated, so that writing into it later
    /// changes no metadata. Refused with [`DiskErrorKind::Exists`] if there is one of that name.
    fn create(&self, name: &str, bytes: u64) -> Result<Self::File, DiskError>;
    /// The file's length in bytes.
    fn len(&self, file: &Self::File) -> Result<u64, DiskError>;
    /// Reads at a byte offset; returns how many bytes came. 0 = at or beyond the end.
    fn read_at(&self, file: &Self::File, offset: u64, into: &mut [u8]) -> Result<usize, DiskError>;
    /// Writes all of `bytes` at a byte offset. Not durable before [`Disk::sync`].
    fn write_at(&self, file: &Self::File, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;
    /// Makes the file's bytes durable (`fdatasync`). After an error nothing is known about them.
    fn sync(&self, file: &Self::File) -> Result<(), DiskError>;
    /// Makes creations, removals and renames durable.
    fn sync_dir(&self) -> Result<(), DiskError>;
    /// Removes a file.
    fn remove(&self, name: &str) -> Result<(), DiskError>;
    /// Renames a file, atomically.
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError>;
}

/// An operation on a disk that failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("could not {operation} {file}: {kind}")]
pub struct DiskError {
    /// What was tried.
    pub operation: DiskOperation,
    /// On which file (or folder); a path where the disk knows one.
    pub file: String,
    /// What came of it.
    pub kind: DiskErrorKind,
}

/// What was tried on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOperation {
    /// [`Disk::names`].
    List,
    /// [`Disk::open`].
    Open,
    /// [`Disk::create`].
    Create,
    /// [`Disk::len`].
    Measure,
    /// [`Disk::read_at`].
    Read,
    /// [`Disk::write_at`].
    Write,
    /// [`Disk::sync`].
    Sync,
    /// [`Disk::sync_dir`].
    SyncDir,
    /// [`Disk::remove`].
    Remove,
    /// [`Disk::rename`].
    Rename,
}

/// Why an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// No space left, or a quota is used up.
    Full,
    /// The file system is mounted read-only.
    ReadOnly,
    /// We may not.
    Denied,
    /// There is no such file.
    NotFound,
    /// There is such a file already.
    Exists,
    /// Anything else: the operating system's error number, 0 if it gave none.
    Other(i32),
}

impl fmt::Display for DiskOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DiskOperation::List => "list the files of",
            DiskOperation::Open => "open",
            DiskOperation::Create => "create",
            DiskOperation::Measure => "find the length of",
            DiskOperation::Read => "read",
            DiskOperation::Write => "write to",
            DiskOperation::Sync => "make durable the bytes of",
            DiskOperation::SyncDir => "make durable the names in",
            DiskOperation::Remove => "remove",
            DiskOperation::Rename => "rename",
        })
    }
}

impl fmt::Display for DiskErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskErrorKind::Full => f.write_str("no space is left"),
            DiskErrorKind::ReadOnly => f.write_str("the file system is read-only"),
            DiskErrorKind::Denied => f.write_str("permission denied"),
            DiskErrorKind::NotFound => f.write_str("there is no such file"),
            DiskErrorKind::Exists => f.write_str("it exists already"),
            DiskErrorKind::Other(0) => f.write_str("an error without a number"),
            DiskErrorKind::Other(number) => write!(f, "{}", std::io::Error::from_raw_os_error(*number)),
        }
    }
}
