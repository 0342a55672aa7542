//! The data folder's secrets and certificates: made on the first start, read on every other.
//!
//! Invariant: the file `cluster` is written last. Where it is, everything else of the cluster is; where
//! it is not, the folder is new, or its first start did not get far, and everything is made again.

use crate::{config::SchedulerConfig, error::StartError};
use fleetwire_common::{
    envelope::keys::{Epoch, RootKeys, Secret},
    ids::Principal,
    time::Time,
};
use fleetwire_disk::DataFolder;
use fleetwire_link::{Authority, DeviceKey, Identity, ServerIdentity, read_private, write_private};
use std::{fs, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

/// Everything that a cluster is known by.
#[derive(Debug)]
pub(crate) struct Data {
    /// The locked folder.
    pub folder: DataFolder,
    /// The cluster CA.
    pub authority: Arc<Authority>,
    /// Derives tokens, receipts and enrolment keys.
    pub keys: RootKeys,
    /// The key epoch of sessions.
    pub epoch: Epoch,
    /// What we serve with.
    pub server: ServerIdentity,
    /// Whether this start made the cluster.
    pub first: bool,
}

/// The journal's folder within the data folder.
pub(crate) const JOURNAL: &str = "journal";
/// The local operator's credentials.
pub const OPERATOR: &str = "operator.identity";
/// The address that was bound: how tools on this machine find the scheduler.
pub const ADDRESS: &str = "address";
const CLUSTER: &str = "cluster";
const AUTHORITY_KEY: &str = "authority.key";
const AUTHORITY_PEM: &str = "authority.pem";
const SERVER_KEY: &str = "server.key";
const SERVER_PEM: &str = "server.pem";
const ROOT_SECRET: &str = "root.secret";
const EPOCH_SECRET: &str = "epoch.secret";
/// A server certificate with less than that left is made anew at a start.
const RENEW_WITHIN: Duration = Duration::from_secs(180 * 24 * 3600);

impl Data {
    /// Opens the folder; `wall` is the wall clock's time.
    pub fn open(config: &SchedulerConfig, folder: DataFolder, wall: Time) -> Result<Data, StartError> {
        let files = Files { folder: &folder };
        let (cluster, first) = match files.text(CLUSTER)? {
            Some(name) => (name.trim().to_owned(), false),
            None => (new_cluster(config, &files)?, true),
        };
        if let Some(asked) = &config.cluster
            && asked.as_str() != cluster
        {
            return Err(StartError::OtherCluster { found: cluster, asked: asked.to_string() });
        }
        if first {
            make(&files, &cluster, wall)?;
        }
        let authority = authority(&files, &cluster)?;
        let root = Secret::from_slice(&files.needed(ROOT_SECRET)?)
            .ok_or_else(|| files.damaged(ROOT_SECRET, "does not have 32 bytes"))?;
        let epoch = read_epoch(&files.needed(EPOCH_SECRET)?)
            .ok_or_else(|| files.damaged(EPOCH_SECRET, "does not have 36 bytes"))?;
        let server = server(&files, &authority, wall)?;
        if first {
            files.write(CLUSTER, format!("{cluster}\n").as_bytes())?;
        }
        Ok(Data { keys: RootKeys::new(root), authority: Arc::new(authority), epoch, server, first, folder })
    }

    /// The local operator's credentials, if they are there and of this cluster.
    pub fn operator(&self) -> Result<Option<Identity>, StartError> {
        match Identity::load(&self.operator_path()) {
            Ok(identity) if identity.authority_sha256() == self.authority.sha256() => Ok(Some(identity)),
            // Of a cluster that was here before: made anew.
            Ok(_) => Ok(None),
            Err(fleetwire_link::IdentityError::File(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the local operator's credentials for a key that the journal knows by now.
    pub fn issue_operator(
        &self,
        principal: &Principal,
        key: DeviceKey,
        addresses: Vec<String>,
        now: Time,
    ) -> Result<(), StartError> {
        let identity = self.authority.issue(principal, key, self.keys.enrolment_key(principal), addresses, now)?;
        let path = self.operator_path();
        identity.save(&path).map_err(|error| StartError::File { doing: "write", path, error })
    }

    /// The journal is of this cluster and no other: it bears the start of the authority's hash.
    pub fn journal_identity(&self) -> fleetwire_journal::Identity {
        journal_identity(&self.authority)
    }

    /// The same for a folder that is only looked at; any journal, if it is not known whose it should be.
    pub fn identity_of(folder: &DataFolder) -> Result<fleetwire_journal::Identity, StartError> {
        let files = Files { folder };
        let Some(cluster) = files.text(CLUSTER)? else {
            return Ok(fleetwire_journal::Identity::IfNew([0; 16]));
        };
        Ok(journal_identity(&authority(&files, cluster.trim())?))
    }

    /// Writes down where we listen.
    pub fn write_address(&self, address: SocketAddr) -> Result<(), StartError> {
        Files { folder: &self.folder }.write(ADDRESS, format!("{address}\n").as_bytes())
    }

    /// Where the local operator's credentials are.
    pub fn operator_path(&self) -> PathBuf {
        self.folder.path().join(OPERATOR)
    }
}

fn authority(files: &Files<'_>, cluster: &str) -> Result<Authority, StartError> {
    Authority::from_pem(cluster, &files.needed_text(AUTHORITY_PEM)?, &files.needed_text(AUTHORITY_KEY)?)
        .map_err(|error| files.damaged(AUTHORITY_PEM, error.to_string()))
}

fn journal_identity(authority: &Authority) -> fleetwire_journal::Identity {
    let hash = authority.sha256();
    let (id, _) = hash.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
    fleetwire_journal::Identity::Exactly(*id)
}

/// Makes everything of a new cluster but its name.
fn make(files: &Files<'_>, cluster: &str, wall: Time) -> Result<(), StartError> {
    let authority = Authority::create(cluster, wall)?;
    files.write(AUTHORITY_KEY, authority.key_pem().as_bytes())?;
    files.write(AUTHORITY_PEM, authority.certificate_pem().as_bytes())?;
    files.write(ROOT_SECRET, &random::<32>()?)?;
    let mut epoch = 1_u32.to_le_bytes().to_vec();
    epoch.extend_from_slice(&random::<32>()?);
    files.write(EPOCH_SECRET, &epoch)?;
    let server = authority.certify_server(wall)?;
    write_server(files, &server)
}

/// A name for the new cluster. A journal without a cluster's name beside it is no new cluster.
fn new_cluster(config: &SchedulerConfig, files: &Files<'_>) -> Result<String, StartError> {
    let journal = files.folder.path().join(JOURNAL);
    if fs::read_dir(&journal).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(files.damaged(CLUSTER, "is missing, although there is a journal"));
    }
    if let Some(name) = &config.cluster {
        return Ok(name.to_string());
    }
    let [a, b, c] = random::<3>()?;
    Ok(format!("fleet-{a:02x}{b:02x}{c:02x}"))
}

fn server(files: &Files<'_>, authority: &Authority, wall: Time) -> Result<ServerIdentity, StartError> {
    if let (Some(certificate), Some(key)) = (files.text(SERVER_PEM)?, files.text(SERVER_KEY)?) {
        let server = ServerIdentity::from_pem(authority, &certificate, &key)
            .map_err(|error| files.damaged(SERVER_PEM, error.to_string()))?;
        if server.expires_at().is_ok_and(|end| end > wall + RENEW_WITHIN) {
            return Ok(server);
        }
    }
    let server = authority.certify_server(wall)?;
    write_server(files, &server)?;
    Ok(server)
}

fn write_server(files: &Files<'_>, server: &ServerIdentity) -> Result<(), StartError> {
    files.write(SERVER_KEY, server.key_pem().as_bytes())?;
    files.write(SERVER_PEM, server.certificate_pem().as_bytes())
}

fn read_epoch(bytes: &[u8]) -> Option<Epoch> {
    let (number, secret) = bytes.split_first_chunk::<4>()?;
    Some(Epoch { number: u32::from_le_bytes(*number), secret: Secret::from_slice(secret)? })
}

/// Random bytes from the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], StartError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(StartError::Randomness)?;
    Ok(bytes)
}

/// The folder's small files: all private, each written whole or not at all.
struct Files<'f> {
    folder: &'f DataFolder,
}

impl Files<'_> {
    fn read(&self, name: &str) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, StartError> {
        let path = self.folder.path().join(name);
        match read_private(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StartError::File { doing: "read", path, error }),
        }
    }

    fn text(&self, name: &str) -> Result<Option<zeroize::Zeroizing<String>>, StartError> {
        let Some(bytes) = self.read(name)? else { return Ok(None) };
        let text = std::str::from_utf8(&bytes).map_err(|_| self.damaged(name, "is no text"))?;
        Ok(Some(zeroize::Zeroizing::new(text.to_owned())))
    }

    fn needed(&self, name: &str) -> Result<zeroize::Zeroizing<Vec<u8>>, StartError> {
        self.read(name)?.ok_or_else(|| self.damaged(name, "is missing"))
    }

    fn needed_text(&self, name: &str) -> Result<zeroize::Zeroizing<String>, StartError> {
        self.text(name)?.ok_or_else(|| self.damaged(name, "is missing"))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StartError> {
        let path = self.folder.path().join(name);
        write_private(&path, bytes).map_err(|error| StartError::File { doing: "write", path, error })
    }

    fn damaged(&self, name: &str, what: impl Into<String>) -> StartError {
        StartError::Damaged { path: self.folder.path().join(name), what: what.into() }
    }
}
