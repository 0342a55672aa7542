//! The working directory of an attempt: emptied, filled with the job's files, and its result taken.
//!
//! Every path is walked component by component below an open directory and no symbolic link is
//! ever followed, so nothing outside `work/` can be read, written or removed, whatever a task left
//! behind. Nothing here runs while a task does.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, SeekFrom, chmodat, fstat, mkdirat, openat, renameat, seek, unlinkat,
};
use rustix::io::Errno;

use super::super::limits::RESULT_BYTES_MAX;

/// The result of an attempt, as far as there is one.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// The task wrote none.
    Absent,
    /// Its bytes.
    Whole(Vec<u8>),
    /// There is something, but not a result that can be taken; the sentence says why.
    Refused(String),
}

/// Opens `work/` in the slot's folder, made when it is missing, and empties it.
pub fn open_empty(slot: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let work = match openat(slot, WORK, flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            mkdirat(slot, WORK, Mode::RWXU)?;
            openat(slot, WORK, flags, Mode::empty())?
        }
        Err(Errno::ACCESS) => {
            chmodat(slot, WORK, Mode::RWXU, AtFlags::empty())?;
            openat(slot, WORK, flags, Mode::empty())?
        }
        other => other?,
    };
    empty(work.as_fd())?;
    Ok(work)
}

/// Removes everything below `work`. One directory is open at a time however deep a task built:
/// folders that are not empty are moved up and taken apart in their turn.
pub fn empty(work: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut moved = 0_u64;
    loop {
        let names = list(work)?;
        if names.is_empty() {
            return Ok(());
        }
        for name in &names {
            match unlinkat(work, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) => remove_folder(work, name, &mut moved)?,
                Err(Errno::ACCESS | Errno::PERM) => {
                    // A task may have taken the write permission from its own directory.
                    rustix::fs::fchmod(work, Mode::RWXU)?;
                    unlinkat(work, name, AtFlags::empty())?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn remove_folder(work: BorrowedFd<'_>, name: &CStr, moved: &mut u64) -> Result<(), Errno> {
    if unlinkat(work, name, AtFlags::REMOVEDIR).is_ok() {
        return Ok(());
    }
    chmodat(work, name, Mode::RWXU, AtFlags::empty())?;
    let folder = open_folder(work, name)?;
    loop {
        let names = list(folder.as_fd())?;
        if names.is_empty() {
            break;
        }
        for inner in &names {
            match unlinkat(&folder, inner, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) => {
                    if unlinkat(&folder, inner, AtFlags::REMOVEDIR).is_err() {
                        chmodat(&folder, inner, Mode::RWXU, AtFlags::empty())?;
                        move_up(folder.as_fd(), inner, work, moved)?;
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
    unlinkat(work, name, AtFlags::REMOVEDIR)
}

fn move_up(folder: BorrowedFd<'_>, inner: &CStr, work: BorrowedFd<'_>, moved: &mut u64) -> Result<(), Errno> {
    loop {
        *moved += 1;
        let name = format!(".fleetwire-removed-{moved}");
        match renameat(folder, inner, work, name.as_str()) {
            // The task made something of that name; the next number is free in the end.
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
            other => return other,
        }
    }
}

/// Writes one of the job's files, with the folders on its way. The path was checked by the agent;
/// a folder that is not one, or a name that is taken, is an error.
pub fn place_file(work: BorrowedFd<'_>, path: &str, data: &[u8], executable: bool) -> Result<(), Errno> {
    let (folder, name) = walk(work, path, true)?;
    let below = folder.as_ref().map_or(work, |folder| folder.as_fd());
    let mode = if executable { Mode::from_raw_mode(0o755) } else { Mode::from_raw_mode(0o644) };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(below, name, flags, mode)?;
    let mut rest = data;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// Reads the result after the last process is gone.
pub fn take_result(work: BorrowedFd<'_>, path: &str) -> Taken {
    match read_result(work, path) {
        Ok(taken) => taken,
        Err(Errno::NOENT) => Taken::Absent,
        Err(Errno::LOOP | Errno::NOTDIR) => {
            Taken::Refused(format!("the result `{path}` is behind a symbolic link, which is not followed"))
        }
        Err(error) => {
            let error = std::io::Error::from(error);
            Taken::Refused(format!("the result `{path}` cannot be read: {error}"))
        }
    }
}

fn read_result(work: BorrowedFd<'_>, path: &str) -> Result<Taken, Errno> {
    let (folder, name) = walk(work, path, false)?;
    let below = folder.as_ref().map_or(work, |folder| folder.as_fd());
    // Not blocking: a FIFO of that name must not hold the supervisor.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(below, name, flags, Mode::empty())?;
    let stat = fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(Taken::Refused(format!("the result `{path}` is not a regular file")));
    }
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    if size > RESULT_BYTES_MAX as u64 {
        return Ok(Taken::Refused(format!("result is {size} bytes, at most {RESULT_BYTES_MAX} are taken")));
    }
    let mut bytes = Vec::with_capacity(RESULT_BYTES_MAX.min(stat.st_size as usize));
    while (bytes.len() as u64) < size {
        let wanted = bytes.capacity();
        if rustix::io::read(&file, rustix::buffer::spare_capacity(&mut bytes))? == 0 || bytes.len() >= wanted {
            break;
        }
    }
    bytes.truncate(RESULT_BYTES_MAX);
    Ok(Taken::Whole(bytes))
}

/// The open folder of the path's last component (`None` is `work` itself) and that component.
fn walk<'p>(work: BorrowedFd<'_>, path: &'p str, make: bool) -> Result<(Option<OwnedFd>, &'p str), Errno> {
    let Some((folders, name)) = path.rsplit_once('/') else {
        return Ok((None, path));
    };
    let mut folder: Option<OwnedFd> = None;
    for component in folders.split('/') {
        let below = folder.as_ref().map_or(work, |folder| folder.as_fd());
        if make {
            match mkdirat(below, component, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        folder = Some(openat(below, component, flags, Mode::empty())?);
    }
    Ok((folder, name))
}

fn open_folder(at: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Some names in a directory, from its start; none only when it is empty.
fn list(folder: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    seek(folder, SeekFrom::Start(0))?;
    let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
    let mut entries = RawDir::new(folder, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
        if names.len() >= NAMES_AT_ONCE {
            break;
        }
    }
    Ok(names)
}

const WORK: &CStr = c"work";
const NAMES_AT_ONCE: usize = 256;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn slot() -> (tempfile::TempDir, OwnedFd) {
        let folder = tempfile::tempdir().unwrap();
        let fd = rustix::fs::open(folder.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        (folder, fd)
    }

    #[test]
    fn whatever_a_task_left_is_removed_and_nothing_else() {
        let (folder, fd) = slot();
        let work = folder.path().join("work");
        std::fs::write(folder.path().join("outside"), "stays").unwrap();
        let opened = open_empty(fd.as_fd()).unwrap();
        // Deeper than the file descriptors a process may have.
        let mut deep = work.clone();
        for _ in 0..300 {
            deep.push("d");
        }
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("file"), "x").unwrap();
        symlink(folder.path(), work.join("up")).unwrap();
        std::fs::create_dir(work.join("locked")).unwrap();
        std::fs::write(work.join("locked/file"), "x").unwrap();
        std::fs::set_permissions(work.join("locked"), PermissionsExt::from_mode(0o0)).unwrap();
        for n in 0..1000 {
            std::fs::write(work.join(format!("f{n}")), "x").unwrap();
        }
        empty(opened.as_fd()).unwrap();
        assert_eq!(std::fs::read_dir(&work).unwrap().count(), 0);
        assert_eq!(std::fs::read_to_string(folder.path().join("outside")).unwrap(), "stays");
    }

    #[test]
    fn files_are_placed_below_and_never_through_links() {
        let (folder, fd) = slot();
        let work = open_empty(fd.as_fd()).unwrap();
        place_file(work.as_fd(), "a/b/c.sh", b"#!/bin/sh\n", true).unwrap();
        let path = folder.path().join("work/a/b/c.sh");
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o111, 0o111);
        symlink("/tmp", folder.path().join("work/link")).unwrap();
        assert!(place_file(work.as_fd(), "link/x", b"", false).is_err());
        symlink("/tmp/nowhere", folder.path().join("work/file")).unwrap();
        assert_eq!(place_file(work.as_fd(), "file", b"", false), Err(Errno::EXIST));
    }

    #[test]
    fn results_are_taken_whole_or_not_at_all() {
        let (folder, fd) = slot();
        let work = open_empty(fd.as_fd()).unwrap();
        let path = |name: &str| folder.path().join("work").join(name);
        assert_eq!(take_result(work.as_fd(), "result"), Taken::Absent);
        assert_eq!(take_result(work.as_fd(), "no/result"), Taken::Absent);
        std::fs::write(path("result"), "[1]").unwrap();
        assert_eq!(take_result(work.as_fd(), "result"), Taken::Whole(b"[1]".to_vec()));
        std::fs::write(path("large"), vec![1; RESULT_BYTES_MAX]).unwrap();
        assert_eq!(take_result(work.as_fd(), "large"), Taken::Whole(vec![1; RESULT_BYTES_MAX]));
        std::fs::write(path("larger"), vec![1; RESULT_BYTES_MAX + 1]).unwrap();
        let Taken::Refused(why) = take_result(work.as_fd(), "larger") else { panic!() };
        assert_eq!(why, "result is 65537 bytes, at most 65536 are taken");
        symlink("/etc/passwd", path("link")).unwrap();
        let Taken::Refused(why) = take_result(work.as_fd(), "link") else { panic!() };
        assert!(why.contains("symbolic link"), "{why}");
        std::fs::create_dir(path("folder")).unwrap();
        assert!(matches!(take_result(work.as_fd(), "folder"), Taken::Refused(_)));
    }
}
