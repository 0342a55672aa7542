//! `fleetwire-scheduler journal`: what is in a journal, whether it is whole, and what can be saved if not.
//!
//! Invariants: the data folder is locked meanwhile, so no scheduler writes into it; nothing but
//! [`repair`] with the operator's word changes the journal, and that keeps a copy of all it touches.

use crate::{Replica, StartError, data::Data, data::JOURNAL, limits::DATA_VERSION};
use fleetwire_common::ids::Position;
use fleetwire_disk::{DataFolder, FolderError, FsDisk};
use fleetwire_journal::{
    Cut, Disk, DiskError, Examined, FileKind, JournalConfig, OpenError, Recovery, RetireError, Summary, TornTail,
    examine, examine_blobs, list_files, segment_name, snapshot_name,
};
use fleetwire_scheduler_core::{
    ReplayError, State,
    fact::{Fact, FactError},
};
use std::{
    borrow::Cow,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Why a journal was not looked at, or is not whole.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// There is none.
    #[error("there is no journal in {}: --data names the folder that a scheduler was started with", data.display())]
    NoJournal {
        /// The folder.
        data: PathBuf,
    },
    /// The folder cannot be used.
    #[error("{0}")]
    Folder(#[from] FolderError),
    /// Whose journal it should be cannot be read.
    #[error("{0}")]
    Data(Box<StartError>),
    /// The disk.
    #[error("{0}")]
    Disk(#[from] DiskError),
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// It is damaged, and can be cut.
    #[error(
        "the journal is damaged: {cause}. `fleetwire-scheduler journal repair --data {}` says what can be saved",
        data.display()
    )]
    Damaged {
        /// The folder.
        data: PathBuf,
        /// Where and how.
        cause: Box<OpenError<ReplayError>>,
    },
    /// It is whole, but bodies beside it are damaged or gone.
    #[error(
        "the journal is whole, but {damaged} of the files and results beside it cannot be read. A start is possible:          tasks that need them fail, and those results are lost"
    )]
    Bodies {
        /// How many.
        damaged: usize,
    },
    /// It is damaged, and nothing here can help.
    #[error("{0}")]
    Lost(Box<OpenError<ReplayError>>),
    /// A fact cannot be read: of a newer build.
    #[error("fact {}: {cause}", position.0)]
    Fact {
        /// Which.
        position: Position,
        /// Why.
        cause: FactError,
    },
    /// A repair was asked for without the word.
    #[error("nothing was changed: add --yes to do that")]
    NotAgreed,
    /// A repair did not get through; it can be repeated.
    #[error("the repair did not get through ({cause}): what it touches was copied to {}", copies.display())]
    Repair {
        /// What failed.
        cause: RetireError,
        /// The copies' folder.
        copies: PathBuf,
    },
}

/// An opened journal that is only looked at.
struct Opened {
    disk: FsDisk,
    config: JournalConfig,
    folder: DataFolder,
}

fn open(data: &Path) -> Result<Opened, ToolError> {
    if !data.join(JOURNAL).is_dir() {
        return Err(ToolError::NoJournal { data: data.to_owned() });
    }
    let folder = DataFolder::open(data, DATA_VERSION)?;
    let config = JournalConfig::new(Data::identity_of(&folder).map_err(|error| ToolError::Data(Box::new(error)))?);
    Ok(Opened { disk: folder.disk(JOURNAL)?, config, folder })
}

/// Reads everything, also what a start would fall back to, and says what is there.
///
/// # Errors
/// [`ToolError::Damaged`] or [`ToolError::Lost`], if a start would refuse it.
pub fn check(data: &Path, out: &mut impl Write) -> Result<(), ToolError> {
    let Opened { disk, config, folder: _folder } = open(data)?;
    for file in list_files(&disk)? {
        let name = file.name;
        match file.kind {
            FileKind::Segment { begins, ends: Some((end, used)), bytes, .. } => {
                writeln!(out, "{name}  facts {} to {}, {used} of {bytes} bytes", begins.0 + 1, end.0)?;
            }
            FileKind::Segment { begins, durable, ends: None, bytes } => {
                let (first, durable) = (begins.0 + 1, durable.0);
                writeln!(out, "{name}  facts from {first} on, durable at least to {durable}, {bytes} bytes")?;
            }
            FileKind::Snapshot { position, facts, bytes } => {
                writeln!(out, "{name}  stands for facts 1 to {}: {facts} facts, {bytes} bytes", position.0)?;
            }
            FileKind::Blobs { begins, bytes } => {
                writeln!(out, "{name}  files and results from byte {begins} of all on, {bytes} bytes")?;
            }
            FileKind::Damaged { offset, damage } => writeln!(out, "{name}  damaged at byte {offset}: {damage}")?,
            FileKind::Newer { format } => writeln!(out, "{name}  format {format}, of a newer build")?,
            FileKind::Prepared => writeln!(out, "{name}  prepared, empty")?,
            FileKind::Other => writeln!(out, "{name}  none of the journal's files")?,
        }
    }
    let mut replica = Replica::default();
    let recovery = match examine(&disk, &config, |position, fact| replica.apply(position, fact)) {
        Ok(Examined::Whole(recovery)) => recovery,
        Ok(Examined::Damaged(cut)) => {
            return Err(ToolError::Damaged { data: data.to_owned(), cause: Box::new(cut.cause) });
        }
        Err(error) => return Err(ToolError::Lost(Box::new(error))),
    };
    tell_recovery(&recovery, out)?;
    if recovery.snapshot.is_some() {
        let elder = JournalConfig { skip_snapshots: 1 + recovery.damaged.len(), ..config };
        let mut replica = Replica::default();
        match examine(&disk, &elder, |position, fact| replica.apply(position, fact)) {
            Ok(Examined::Whole(recovery)) => match recovery.snapshot {
                Some(older) => writeln!(out, "without that snapshot, the one of fact {} would do", older.position.0)?,
                None => writeln!(out, "without that snapshot, the segments would do")?,
            },
            Ok(Examined::Damaged(Cut { cause, .. })) | Err(cause) => {
                writeln!(out, "warning: without that snapshot nothing would do: {cause}")?;
            }
        }
    }
    check_bodies(&disk, &replica.state, out)
}

fn check_bodies(disk: &FsDisk, state: &State, out: &mut impl Write) -> Result<(), ToolError> {
    let damaged = examine_blobs(disk, state.named_blobs());
    damaged.iter().take(DAMAGED_TOLD_MAX).try_for_each(|error| writeln!(out, "{error}"))?;
    match damaged.len() {
        0 => Ok(writeln!(out, "whole: {} files and results beside the facts", state.named_blobs().count())?),
        damaged => Err(ToolError::Bodies { damaged }),
    }
}

/// Damaged bodies that are named one by one.
const DAMAGED_TOLD_MAX: usize = 20;

fn tell_recovery(recovery: &Recovery, out: &mut impl Write) -> Result<(), ToolError> {
    for damaged in &recovery.damaged {
        let (name, offset, damage) = (snapshot_name(damaged.position), damaged.offset, damaged.damage);
        writeln!(out, "warning: {name} is damaged at byte {offset} ({damage}); what it stands for is still there")?;
    }
    if let Some(TornTail { segment, offset, bytes }) = recovery.cut {
        let name = segment_name(segment);
        writeln!(
            out,
            "the last write did not get through: {bytes} bytes from byte {offset} of {name} on were never \
             acknowledged, and are cut by the next start"
        )?;
    }
    let (facts, marked) = (recovery.position.0, recovery.position.0 - recovery.rewritten);
    writeln!(out, "whole: {facts} facts, of which {marked} are marked durable")?;
    match recovery.snapshot {
        Some(snapshot) => writeln!(
            out,
            "a start reads the snapshot of fact {} ({} facts), and {} facts behind it",
            snapshot.position.0, snapshot.facts, recovery.facts
        )?,
        None => writeln!(out, "a start reads all of them: there is no snapshot")?,
    }
    Ok(())
}

/// Prints all facts that a start would read. Specs of jobs are left out: `fleetwire job` shows them.
///
/// # Errors
/// [`ToolError`]; what is valid was printed before.
pub fn dump(data: &Path, json: bool, out: &mut impl Write) -> Result<(), ToolError> {
    let Opened { disk, config, folder: _folder } = open(data)?;
    let mut failed = None;
    let print = |position: Position, bytes: &[u8]| -> Result<(), ReplayError> {
        if failed.is_none() {
            failed = print_fact(position, bytes, json, out).err();
        }
        Ok(())
    };
    let examined = examine(&disk, &config, print);
    if let Some(failed) = failed {
        return Err(failed);
    }
    match examined {
        Ok(Examined::Whole(_)) => Ok(()),
        Ok(Examined::Damaged(cut)) => Err(ToolError::Damaged { data: data.to_owned(), cause: Box::new(cut.cause) }),
        Err(error) => Err(ToolError::Lost(Box::new(error))),
    }
}

fn print_fact(position: Position, bytes: &[u8], json: bool, out: &mut impl Write) -> Result<(), ToolError> {
    let (at, mut fact) = Fact::decode(bytes).map_err(|cause| ToolError::Fact { position, cause })?;
    if let Fact::JobAccepted { bytes, .. } = &mut fact {
        *bytes = Cow::Borrowed(&[]);
    }
    let text = format!("{fact:?}");
    match json {
        true => writeln!(out, r#"{{"position":{},"at_us":{},"fact":{}}}"#, position.0, at.0, quoted(&text))?,
        false => writeln!(out, "{} {} {text}", position.0, at.0)?,
    }
    Ok(())
}

/// As a JSON string.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control < ' ' => quoted.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// Says what would be lost if a damaged journal were cut where the damage begins; with `agreed`, does it.
///
/// # Errors
/// [`ToolError::NotAgreed`] without the word, if there is anything to do.
pub fn repair(data: &Path, agreed: bool, out: &mut impl Write) -> Result<(), ToolError> {
    let Opened { disk, config, folder } = open(data)?;
    let mut replica = Replica::default();
    let cut = match examine(&disk, &config, |position, fact| replica.apply(position, fact)) {
        Ok(Examined::Whole(_)) => {
            writeln!(out, "nothing to repair: the journal is whole")?;
            return Ok(());
        }
        Ok(Examined::Damaged(cut)) => cut,
        Err(error) => return Err(ToolError::Lost(Box::new(error))),
    };
    let (kept, lost) = (cut.position.0, cut.lost_up_to.0);
    writeln!(out, "{}", cut.cause)?;
    writeln!(out, "kept:  facts 1 to {kept}")?;
    match lost > kept {
        true => writeln!(
            out,
            "lost:  facts {} to {lost}, which were known durable, and any after them: jobs, cancels and results among \
             them may have been acknowledged",
            kept + 1
        )?,
        false => writeln!(out, "lost:  whatever came after fact {kept}; how much that was is not known")?,
    }
    let copies = free_folder(folder.path());
    let files = cut.files.join(", ");
    writeln!(out, "files: {files}; they are copied to {} first", copies.display())?;
    if !agreed {
        return Err(ToolError::NotAgreed);
    }
    let failed = |cause: RetireError| ToolError::Repair { cause, copies: copies.clone() };
    let copies_disk = FsDisk::open(&copies)?;
    cut.make(&disk, &copies_disk).map_err(failed)?;
    copies_disk.sync_dir()?;
    writeln!(out, "done. The scheduler can be started; what agents report of lost attempts is refused as unknown")?;
    Ok(())
}

/// A folder for copies that is not there yet.
fn free_folder(data: &Path) -> PathBuf {
    let mut number = 1;
    loop {
        let folder = data.join(format!("journal-damaged-{number}"));
        if !folder.exists() {
            return folder;
        }
        number += 1;
    }
}
