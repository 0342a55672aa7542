//! A disk that fails or stands still at the test's word, for one process: a library in front of the C library's, put in
//! with `LD_PRELOAD`, that looks for two files before each write and sync.
//!
//! Needs a C compiler; [`FaultyDisk::new`] says what is missing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The faults of one process and its children.
pub struct FaultyDisk {
    folder: PathBuf,
}

impl FaultyDisk {
    /// Builds it in a folder of its own, or says why that cannot be done here.
    pub fn new(folder: &Path) -> Result<FaultyDisk, String> {
        fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        let source = folder.join("faults.c");
        fs::write(&source, SOURCE).map_err(|error| error.to_string())?;
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(folder.join("faults.so")).arg(&source).arg("-ldl");
        let output = compiler.output().map_err(|error| format!("cc: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success().then(|| FaultyDisk { folder: folder.to_owned() }).ok_or(said)
    }

    /// What the environment of the process has to have.
    pub fn environment(&self) -> Vec<(String, String)> {
        let text = |path: PathBuf| path.to_str().expect("a temporary folder's name").to_owned();
        vec![
            ("LD_PRELOAD".to_owned(), text(self.folder.join("faults.so"))),
            ("DISK_FAULTS".to_owned(), text(self.folder.clone())),
        ]
    }

    /// From now on every sync fails.
    pub fn fail(&self) {
        self.set("fail");
    }

    /// From now on every write and sync stands still.
    pub fn stall(&self) {
        self.set("stall");
    }

    /// All is well again.
    pub fn heal(&self) {
        for name in ["fail", "stall", "failed", "stalled"] {
            let _ = fs::remove_file(self.folder.join(name));
        }
    }

    /// A sync has failed since.
    pub fn has_failed(&self) -> bool {
        self.folder.join("failed").exists()
    }

    /// A write or a sync stands still, or has since.
    pub fn has_stalled(&self) -> bool {
        self.folder.join("stalled").exists()
    }

    fn set(&self, name: &str) {
        fs::write(self.folder.join(name), "").expect("the test's own folder");
    }
}

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static int look(const char *name, int make) {
    char path[4096];
    const char *folder = getenv("DISK_FAULTS");
    if (!folder) return 0;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!make) return access(path, F_OK) == 0;
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    if (fd >= 0) close(fd);
    return 0;
}

static void stand_still(void) {
    struct timespec pause = {0, 5000000};
    if (look("stall", 0)) look("stalled", 1);
    while (look("stall", 0)) nanosleep(&pause, NULL);
}

static int fails(void) {
    stand_still();
    if (!look("fail", 0)) return 0;
    look("failed", 1);
    errno = EIO;
    return 1;
}

int fdatasync(int fd) {
    if (fails()) return -1;
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}

int fsync(int fd) {
    if (fails()) return -1;
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    stand_still();
    return ((ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64"))(fd, bytes, count, at);
}
"#;
