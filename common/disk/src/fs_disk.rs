//! A folder of the file system as a [`Disk`].
//!
//! Invariants: files are named relative to the open folder, so renaming the folder changes nothing;
//! what `create` returns has all its blocks allocated and written, so that later writes change no
//! metadata and `fdatasync` costs one flush.

use fleetwire_journal::{Disk, DiskError, DiskErrorKind, DiskOperation};
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;
use std::{
    fs::{DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, FileExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// An open folder. Clones share it.
#[derive(Clone, Debug)]
pub struct FsDisk {
    folder: Arc<Folder>,
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    handle: File,
}

/// An open file in an [`FsDisk`].
#[derive(Debug)]
pub struct FsFile {
    file: File,
    name: String,
}

impl FsDisk {
    /// Opens the folder, and creates it (mode 0700) if only it is missing.
    pub fn open(path: &Path) -> Result<FsDisk, DiskError> {
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let synced = File::open(parent).and_then(|parent| parent.sync_all());
                synced.map_err(|error| at(DiskOperation::SyncDir, parent, &error))?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(at(DiskOperation::Create, path, &error)),
        }
        let handle = File::open(path).map_err(|error| at(DiskOperation::Open, path, &error))?;
        Ok(FsDisk { folder: Arc::new(Folder { path: path.to_owned(), handle }) })
    }

    /// The folder's path, as it was opened.
    pub fn path(&self) -> &Path {
        &self.folder.path
    }

    /// Opens a file relative to the folder.
    pub(crate) fn open_with(
        &self,
        operation: DiskOperation,
        name: &str,
        flags: OFlags,
        mode: Mode,
    ) -> Result<File, DiskError> {
        let opened = rustix::fs::openat(&self.folder.handle, name, flags | OFlags::CLOEXEC, mode);
        opened.map(File::from).map_err(|errno| self.error(operation, name, &errno.into()))
    }

    pub(crate) fn error(&self, operation: DiskOperation, name: &str, error: &io::Error) -> DiskError {
        at(operation, &self.folder.path.join(name), error)
    }
}

impl Disk for FsDisk {
    type File = FsFile;

    fn names(&self) -> Result<Vec<String>, DiskError> {
        let failed = |errno: Errno| self.error(DiskOperation::List, "", &errno.into());
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.folder.handle).map_err(failed)? {
            // A name that is no UTF-8 is none of ours.
            match entry.map_err(failed)?.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> Result<FsFile, DiskError> {
        let file = self.open_with(DiskOperation::Open, name, OFlags::RDWR, Mode::empty())?;
        Ok(FsFile { file, name: name.to_owned() })
    }

    fn create(&self, name: &str, bytes: u64) -> Result<FsFile, DiskError> {
        let failed = |error: io::Error| self.error(DiskOperation::Create, name, &error);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let file = self.open_with(DiskOperation::Create, name, flags, Mode::RUSR | Mode::WUSR)?;
        // All space at once: one extent, and a full disk is known before anything is written. Where
        // the file system cannot, writing the zeros allocates as well.
        #[cfg(target_os = "linux")]
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
            Err(errno) => {
                self.remove(name)?;
                return Err(failed(errno.into()));
            }
        }
        // Extents that were allocated but never written would make the first sync of each a change
        // of metadata.
        let all = vec![0; ZEROS_BYTES];
        let mut offset = 0;
        while offset < bytes {
            let zeros = all.get(..(bytes - offset).min(ZEROS_BYTES as u64) as usize).unwrap_or_default();
            file.write_all_at(zeros, offset).map_err(failed)?;
            offset += zeros.len() as u64;
        }
        Ok(FsFile { file, name: name.to_owned() })
    }

    fn len(&self, file: &FsFile) -> Result<u64, DiskError> {
        let metadata = file.file.metadata();
        metadata.map(|metadata| metadata.len()).map_err(|error| self.error(DiskOperation::Measure, &file.name, &error))
    }

    fn read_at(&self, file: &FsFile, offset: u64, into: &mut [u8]) -> Result<usize, DiskError> {
        loop {
            match file.file.read_at(into, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(DiskOperation::Read, &file.name, &error)),
                Ok(bytes) => return Ok(bytes),
            }
        }
    }

    fn write_at(&self, file: &FsFile, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let written = file.file.write_all_at(bytes, offset);
        written.map_err(|error| self.error(DiskOperation::Write, &file.name, &error))
    }

    fn sync(&self, file: &FsFile) -> Result<(), DiskError> {
        file.file.sync_data().map_err(|error| self.error(DiskOperation::Sync, &file.name, &error))
    }

    fn sync_dir(&self) -> Result<(), DiskError> {
        self.folder.handle.sync_all().map_err(|error| self.error(DiskOperation::SyncDir, "", &error))
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        let removed = rustix::fs::unlinkat(&self.folder.handle, name, AtFlags::empty());
        removed.map_err(|errno| self.error(DiskOperation::Remove, name, &errno.into()))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let renamed = rustix::fs::renameat(&self.folder.handle, from, &self.folder.handle, to);
        renamed.map_err(|errno| self.error(DiskOperation::Rename, from, &errno.into()))
    }
}

/// An error of the operating system as the disk's.
pub(crate) fn at(operation: DiskOperation, path: &Path, error: &io::Error) -> DiskError {
    let number = error.raw_os_error().unwrap_or(0);
    let kind = match Errno::from_raw_os_error(number) {
        Errno::NOSPC | Errno::DQUOT => DiskErrorKind::Full,
        Errno::ROFS => DiskErrorKind::ReadOnly,
        Errno::ACCESS | Errno::PERM => DiskErrorKind::Denied,
        Errno::NOENT => DiskErrorKind::NotFound,
        Errno::EXIST => DiskErrorKind::Exists,
        _ => DiskErrorKind::Other(number),
    };
    DiskError { operation, file: path.display().to_string(), kind }
}

/// Zeros that are written at a time. On the heap: as a constant they would be part of the executable.
const ZEROS_BYTES: usize = 64 << 10;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_does_what_the_journal_needs() {
        let place = tempfile::tempdir().unwrap();
        let disk = FsDisk::open(&place.path().join("journal")).unwrap();
        let file = disk.create("a", 300_000).unwrap();
        assert_eq!(disk.len(&file).unwrap(), 300_000);
        disk.write_at(&file, 299_990, b"0123456789").unwrap();
        disk.sync(&file).unwrap();
        disk.rename("a", "b").unwrap();
        disk.sync_dir().unwrap();
        assert_eq!(disk.names().unwrap(), ["b"]);
        let mut bytes = [9; 20];
        assert_eq!(disk.read_at(&disk.open("b").unwrap(), 299_985, &mut bytes).unwrap(), 15);
        assert_eq!(&bytes, b"\0\0\0\0\x000123456789\x09\x09\x09\x09\x09");
        assert_eq!(disk.create("b", 1).unwrap_err().kind, DiskErrorKind::Exists);
        disk.remove("b").unwrap();
        let missing = disk.open("b").unwrap_err();
        assert_eq!(missing.kind, DiskErrorKind::NotFound);
        assert!(missing.to_string().ends_with("journal/b: there is no such file"), "{missing}");
    }

    #[test]
    fn errors_are_told_apart() {
        let kinds = [(Errno::NOSPC, DiskErrorKind::Full), (Errno::DQUOT, DiskErrorKind::Full)];
        let more = [(Errno::ROFS, DiskErrorKind::ReadOnly), (Errno::IO, DiskErrorKind::Other(5))];
        for (errno, kind) in kinds.into_iter().chain(more) {
            let error = at(DiskOperation::Write, Path::new("x"), &errno.into());
            assert_eq!(error.kind, kind);
        }
    }
}
