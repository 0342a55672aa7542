//! The data folder: all that one scheduler or agent keeps.
//!
//! Invariants: at most one process has it open; a folder that a newer build made, or that is none of
//! ours, is refused and left as it is, but for its lock; it and its files are its owner's only; a small
//! file is replaced as a whole or not at all, whatever happens meanwhile.

use crate::fs_disk::{FsDisk, at};
use fleetwire_journal::{Disk, DiskError, DiskErrorKind, DiskOperation};
use rustix::fs::{Mode, OFlags};
use std::{
    fs::{DirBuilder, File, Permissions, TryLockError},
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, FileExt, PermissionsExt},
    path::{Path, PathBuf},
};
use thiserror::Error;

/// An open data folder. The lock is held until it is dropped.
#[derive(Debug)]
pub struct DataFolder {
    disk: FsDisk,
    version: u32,
    _lock: File,
}

/// Why a data folder was not opened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FolderError {
    /// Another process has it open.
    #[error("data folder {} is in use{}: stop that process, or choose another folder with --data",
        folder.display(), holder.map(|pid| format!(" by process {pid}")).unwrap_or_default())]
    Locked {
        /// The folder.
        folder: PathBuf,
        /// The process that holds it, if it could be read.
        holder: Option<u32>,
    },
    /// A newer build made it.
    #[error("data folder {} has version {found}, this build knows up to {supported}: start a newer build",
        folder.display())]
    Newer {
        /// The folder.
        folder: PathBuf,
        /// Its version.
        found: u32,
        /// The newest that this build knows.
        supported: u32,
    },
    /// Its version cannot be read.
    #[error("data folder {}: the file `version` should hold a number, it holds {found:?}", folder.display())]
    Version {
        /// The folder.
        folder: PathBuf,
        /// What its version file holds, shortened.
        found: String,
    },
    /// It holds files, but no data folder was ever made of it.
    #[error("{} is no data folder and holds {found:?} already: choose an empty or a new folder with --data",
        folder.display())]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// One of the files in it.
        found: String,
    },
    /// Nothing can be written there.
    #[error("data folder {} cannot be written to ({cause}): make it writable, or choose another with --data",
        folder.display())]
    NotWritable {
        /// The folder.
        folder: PathBuf,
        /// What was tried.
        cause: DiskError,
    },
    /// Anything else.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Why a small file was not read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// It is larger than what it holds can be.
    #[error("{} has more than {max} bytes", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// The most that was expected.
        max: usize,
    },
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl DataFolder {
    /// Opens the folder, or makes one of a folder that is empty or missing. `version` is what this
    /// build writes and the newest that it reads.
    pub fn open(path: &Path, version: u32) -> Result<DataFolder, FolderError> {
        let failed = |cause: DiskError| match cause.kind {
            DiskErrorKind::ReadOnly | DiskErrorKind::Denied => {
                FolderError::NotWritable { folder: path.to_owned(), cause }
            }
            _ => FolderError::Disk(cause),
        };
        let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
        created.map_err(|error| failed(at(DiskOperation::Create, path, &error)))?;
        let disk = FsDisk::open(path).map_err(failed)?;
        let names = disk.names().map_err(failed)?;
        let foreign = names.iter().find(|name| !name.starts_with('.') && *name != LOCK && *name != LOST_AND_FOUND);
        if let Some(found) = foreign.filter(|_| !names.iter().any(|name| name == VERSION)) {
            return Err(FolderError::Foreign { folder: path.to_owned(), found: found.clone() });
        }
        let lock = lock(&disk, failed)?;
        let mut folder = DataFolder { disk, version, _lock: lock };
        match folder.read(VERSION, VERSION_BYTES_MAX).map_err(|error| match error {
            ReadError::TooLarge { .. } => FolderError::Version { folder: path.to_owned(), found: "…".to_owned() },
            ReadError::Disk(cause) => failed(cause),
        })? {
            Some(bytes) => folder.version = known_version(path, &bytes, version)?,
            None => folder.write_atomically(VERSION, format!("{version}\n").as_bytes(), 0o600).map_err(failed)?,
        }
        let permitted = std::fs::set_permissions(path, Permissions::from_mode(0o700));
        permitted.map_err(|error| failed(at(DiskOperation::Write, path, &error)))?;
        Ok(folder)
    }

    /// Its path, as it was opened.
    pub fn path(&self) -> &Path {
        self.disk.path()
    }

    /// The version of what is in it: at most the one it was opened with.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// A folder within, created if it is missing: for a journal.
    pub fn disk(&self, name: &str) -> Result<FsDisk, DiskError> {
        FsDisk::open(&self.path().join(name))
    }

    /// Replaces a small file as a whole, durably: after a crash it is the old one or the new one. `mode`
    /// is its exact permission bits. One writer at a time for each name.
    pub fn write_atomically(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), DiskError> {
        let new = format!(".{name}.new");
        let failed = |error: std::io::Error| self.disk.error(DiskOperation::Write, &new, &error);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let mut file = self.disk.open_with(DiskOperation::Create, &new, flags, Mode::RUSR | Mode::WUSR)?;
        // The mode before the content: what is secret is never readable by others, not for a moment.
        file.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
        file.write_all(bytes).map_err(failed)?;
        file.sync_all().map_err(|error| self.disk.error(DiskOperation::Sync, &new, &error))?;
        self.disk.rename(&new, name)?;
        self.disk.sync_dir()
    }

    /// Reads a small file of at most `max` bytes; `None` if there is none.
    pub fn read(&self, name: &str, max: usize) -> Result<Option<Vec<u8>>, ReadError> {
        let file = match self.disk.open_with(DiskOperation::Open, name, OFlags::RDONLY, Mode::empty()) {
            Ok(file) => file,
            Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ReadError::Disk(error)),
        };
        let mut bytes = Vec::new();
        let read = file.take(max as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|error| self.disk.error(DiskOperation::Read, name, &error))?;
        if bytes.len() > max {
            return Err(ReadError::TooLarge { file: self.path().join(name), max });
        }
        Ok(Some(bytes))
    }

    /// Removes a small file, durably; one that is not there is no error.
    pub fn remove(&self, name: &str) -> Result<(), DiskError> {
        match self.disk.remove(name) {
            Err(error) if error.kind == DiskErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.disk.sync_dir(),
        }
    }
}

/// Takes the folder's lock, and writes our process id into it for whoever comes next.
fn lock(disk: &FsDisk, failed: impl Fn(DiskError) -> FolderError) -> Result<File, FolderError> {
    let flags = OFlags::RDWR | OFlags::CREATE;
    let lock = disk.open_with(DiskOperation::Open, LOCK, flags, Mode::RUSR | Mode::WUSR).map_err(&failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = [0; 16];
            let bytes = lock.read_at(&mut text, 0).unwrap_or(0);
            let text = text.get(..bytes).and_then(|text| std::str::from_utf8(text).ok());
            let holder = text.and_then(|text| text.trim().parse().ok());
            return Err(FolderError::Locked { folder: disk.path().to_owned(), holder });
        }
        Err(TryLockError::Error(error)) => return Err(failed(disk.error(DiskOperation::Open, LOCK, &error))),
    }
    let text = format!("{}\n", std::process::id());
    let written = lock.set_len(0).and_then(|()| lock.write_all_at(text.as_bytes(), 0));
    written.map_err(|error| failed(disk.error(DiskOperation::Write, LOCK, &error)))?;
    Ok(lock)
}

/// The version that a version file holds, if this build knows it.
fn known_version(path: &Path, bytes: &[u8], supported: u32) -> Result<u32, FolderError> {
    let text = String::from_utf8_lossy(bytes);
    match text.trim().parse::<u32>() {
        Ok(found) if found > supported => Err(FolderError::Newer { folder: path.to_owned(), found, supported }),
        Ok(found) if found > 0 => Ok(found),
        _ => Err(FolderError::Version { folder: path.to_owned(), found: text.into_owned() }),
    }
}

const LOCK: &str = "lock";
const VERSION: &str = "version";
/// What some file systems put into their root, which may be mounted as a data folder.
const LOST_AND_FOUND: &str = "lost+found";
const VERSION_BYTES_MAX: usize = 32;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_made_once_and_opened_again() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("deep/data");
        let folder = DataFolder::open(&path, 2).unwrap();
        folder.write_atomically("secret", b"one", 0o600).unwrap();
        folder.write_atomically("secret", b"two", 0o400).unwrap();
        folder.write_atomically("secret", b"three", 0o644).unwrap();
        drop(folder);
        let folder = DataFolder::open(&path, 3).unwrap();
        assert_eq!((folder.version(), folder.path()), (2, path.as_path()));
        assert_eq!(folder.read("secret", 5).unwrap().unwrap(), b"three");
        assert_eq!(folder.read("nothing", 5), Ok(None));
        assert_eq!(folder.read("secret", 4), Err(ReadError::TooLarge { file: path.join("secret"), max: 4 }));
        folder.remove("secret").unwrap();
        folder.remove("secret").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join("version"))), (0o700, 0o600));
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 2, "lock and version, nothing left behind");
    }

    #[test]
    fn a_folder_in_use_names_its_holder() {
        let place = tempfile::tempdir().unwrap();
        let held = DataFolder::open(place.path(), 1).unwrap();
        let refused = DataFolder::open(place.path(), 1).unwrap_err();
        let holder = Some(std::process::id());
        assert_eq!(refused, FolderError::Locked { folder: place.path().to_owned(), holder });
        assert!(refused.to_string().contains(&format!("by process {}", std::process::id())));
        drop(held);
        DataFolder::open(place.path(), 1).unwrap();
    }

    #[test]
    fn newer_broken_and_foreign_folders_are_refused_and_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("data");
        drop(DataFolder::open(&path, 7).unwrap());
        let newer = FolderError::Newer { folder: path.clone(), found: 7, supported: 6 };
        assert_eq!(DataFolder::open(&path, 6).unwrap_err(), newer);
        for broken in ["", "0", "seven", "-1", &"9".repeat(40)] {
            std::fs::write(path.join("version"), broken).unwrap();
            assert!(matches!(DataFolder::open(&path, 6), Err(FolderError::Version { .. })), "{broken:?}");
        }
        std::fs::write(place.path().join("thesis.tex"), "").unwrap();
        let foreign = DataFolder::open(place.path(), 1).unwrap_err();
        assert!(matches!(foreign, FolderError::Foreign { .. }), "{foreign}");
        assert!(!place.path().join("lock").exists());
    }

    #[test]
    fn a_folder_that_cannot_be_written_says_so() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("data");
        drop(DataFolder::open(&path, 1).unwrap());
        let read_only = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        read_only(&path.join("lock"), 0o444);
        read_only(&path, 0o555);
        read_only(place.path(), 0o755);
        let opened = std::thread::scope(|threads| {
            let open = || {
                // Permissions do not hold for a superuser, so this thread ceases to be one.
                if rustix::process::geteuid().is_root() {
                    rustix::thread::set_thread_uid(rustix::fs::Uid::from_raw(65534)).unwrap();
                }
                DataFolder::open(&path, 1)
            };
            threads.spawn(open).join().unwrap()
        });
        let refused = opened.unwrap_err();
        assert!(matches!(refused, FolderError::NotWritable { .. }), "{refused}");
        assert!(refused.to_string().contains("lock: permission denied"), "{refused}");
        read_only(&path, 0o700);
    }
}
