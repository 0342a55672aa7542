//! A device's own key, and the identity that a cluster gave it.
//!
//! The private key is made here and stays here: a [`DeviceKey`] hands out a certificate request and TLS
//! signatures, nothing else. Its bytes are wiped when it is dropped. (The
//! primitives' own parsed form, which TLS signs with, is out of our hands.)

use crate::{
    certificate::{CertificateError, principal_of, validity},
    private_file::{read_private, write_private},
};
use fleetwire_common::{
    envelope::keys::{Secret, sha256},
    ids::Principal,
    time::Time,
};
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use rustls::{
    crypto::ring::sign::any_eddsa_type,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};
use std::{io, path::Path};
use zeroize::Zeroizing;

/// A private key (Ed25519, PKCS #8) and the way to prove it.
#[derive(Clone)]
pub struct DeviceKey {
    pkcs8: Zeroizing<Vec<u8>>,
    public_key: Vec<u8>,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The operating system has no randomness, or the key cannot sign.
    #[error("making a key: {0}")]
    Make(#[source] rcgen::Error),
    /// The bytes are no Ed25519 key.
    #[error("not an Ed25519 private key in PKCS #8: {0}")]
    Malformed(#[source] rcgen::Error),
    /// The file cannot be read or written.
    #[error("{0}")]
    File(#[from] io::Error),
}

impl DeviceKey {
    /// Makes a new one.
    pub fn generate() -> Result<DeviceKey, KeyError> {
        let pair = Zeroizing::new(KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(KeyError::Make)?);
        Ok(DeviceKey { pkcs8: Zeroizing::new(pair.serialize_der()), public_key: pair.subject_public_key_info() })
    }

    /// Reads one (DER, PKCS #8).
    pub fn from_bytes(pkcs8: &[u8]) -> Result<DeviceKey, KeyError> {
        let pkcs8 = Zeroizing::new(pkcs8.to_vec());
        let public_key = pair(&pkcs8).map_err(KeyError::Malformed)?.subject_public_key_info();
        Ok(DeviceKey { pkcs8, public_key })
    }

    /// Its bytes (DER, PKCS #8), for a file that nobody else reads.
    pub fn bytes(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The key in that file; makes one and keeps it there if there is none. A device does this before it
    /// asks to join, so that it can ask again with the same key.
    pub fn load_or_generate(path: &Path) -> Result<DeviceKey, KeyError> {
        match read_private(path) {
            Ok(bytes) => Self::from_bytes(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = Self::generate()?;
                write_private(path, key.bytes())?;
                Ok(key)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A certificate request (DER, PKCS #10), signed with the key. It asks for no names.
    pub fn csr(&self) -> Result<Vec<u8>, KeyError> {
        let params = CertificateParams::default();
        let request = pair(&self.pkcs8).and_then(|pair| params.serialize_request(&*pair)).map_err(KeyError::Make)?;
        Ok(request.der().to_vec())
    }

    /// SHA-256 of the public key (DER, SubjectPublicKeyInfo), by which the scheduler knows it.
    pub fn key_sha256(&self) -> [u8; 32] {
        sha256(&self.public_key)
    }

    /// The public key (DER, SubjectPublicKeyInfo).
    pub(crate) fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    pub(crate) fn pair(&self) -> Result<Zeroizing<KeyPair>, rcgen::Error> {
        pair(&self.pkcs8)
    }

    /// What TLS signs with, for that chain.
    pub(crate) fn for_tls(&self, chain: Vec<CertificateDer<'static>>) -> Result<CertifiedKey, rustls::Error> {
        let key = any_eddsa_type(&PrivatePkcs8KeyDer::from(self.pkcs8.as_slice()))?;
        Ok(CertifiedKey::new(chain, key))
    }
}

impl std::fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeviceKey(…)")
    }
}

fn pair(pkcs8: &[u8]) -> Result<Zeroizing<KeyPair>, rcgen::Error> {
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &rcgen::PKCS_ED25519).map(Zeroizing::new)
}

/// Who a device, an operator or a service is in one cluster, and how it proves that.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Whom the certificate names.
    pub principal: Principal,
    /// The cluster's name.
    pub cluster: String,
    /// The key under which `Hello` and `Welcome` are sealed.
    pub enrolment_key: Secret,
    /// Where the scheduler listens, `host:port`; tried in order.
    pub addresses: Vec<String>,
    /// It is not earlier than this, whatever the device's clock says. Raise it to the latest cluster time
    /// that is known.
    pub known_time: Time,
    pub(crate) certificate: Vec<u8>,
    pub(crate) authority: Vec<u8>,
    pub(crate) key: DeviceKey,
}

/// Why bytes are no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Not written by us, or damaged.
    #[error("not an identity file, or damaged: {0}")]
    Damaged(&'static str),
    /// Written by a newer version.
    #[error("an identity of format {found}: this version reads {FORMAT}")]
    Format {
        /// Its format.
        found: u8,
    },
    /// The key does not read.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// The certificate does not read.
    #[error("{0}")]
    Certificate(#[from] CertificateError),
    /// The file cannot be read or written.
    #[error("{0}")]
    File(#[from] io::Error),
}

const MAGIC: &[u8; 7] = b"fw-iden";
const FORMAT: u8 = 1;
const ADDRESSES_MAX: usize = 16;

impl Identity {
    /// Until when the certificate is valid.
    pub fn expires_at(&self) -> Result<Time, CertificateError> {
        validity(&self.certificate).map(|(_, end)| end)
    }

    /// SHA-256 of the cluster authority's certificate, DER.
    pub fn authority_sha256(&self) -> [u8; 32] {
        sha256(&self.authority)
    }

    /// The form that is written to a file: it holds the private key.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(2 << 10));
        bytes.extend_from_slice(MAGIC);
        bytes.push(FORMAT);
        bytes.extend_from_slice(&self.known_time.0.to_le_bytes());
        let fields = [
            self.cluster.as_bytes(),
            &self.certificate,
            &self.authority,
            self.key.bytes(),
            self.enrolment_key.bytes().as_slice(),
        ];
        for field in fields.into_iter().chain(self.addresses.iter().take(ADDRESSES_MAX).map(String::as_bytes)) {
            bytes.extend_from_slice(&(field.len() as u32).to_le_bytes());
            bytes.extend_from_slice(field);
        }
        let sum = sha256(&bytes);
        bytes.extend_from_slice(&sum);
        bytes
    }

    /// Reads that form. The principal is the one that the certificate names.
    pub fn from_bytes(bytes: &[u8]) -> Result<Identity, IdentityError> {
        let damaged = IdentityError::Damaged;
        let rest = bytes.strip_prefix(MAGIC).ok_or(damaged("it does not begin as one"))?;
        let (format, _) = rest.split_first().ok_or(damaged("too short"))?;
        if *format != FORMAT {
            return Err(IdentityError::Format { found: *format });
        }
        let (body, sum) = bytes.split_last_chunk::<32>().ok_or(damaged("too short"))?;
        if sha256(body) != *sum {
            return Err(damaged("its checksum is wrong"));
        }
        let rest = body.get(MAGIC.len() + 1..).ok_or(damaged("too short"))?;
        let (known_time, mut rest) = rest.split_first_chunk::<8>().ok_or(damaged("too short"))?;
        let mut next = || field(&mut rest).ok_or(damaged("a field is missing"));
        let cluster = String::from_utf8(next()?.to_vec()).map_err(|_| damaged("the cluster's name is not UTF-8"))?;
        let (certificate, authority) = (next()?.to_vec(), next()?.to_vec());
        let key = DeviceKey::from_bytes(next()?)?;
        let enrolment_key = Secret::from_slice(next()?).ok_or(damaged("the enrolment key has another length"))?;
        let mut addresses = Vec::new();
        while !rest.is_empty() && addresses.len() < ADDRESSES_MAX {
            let address = field(&mut rest).ok_or(damaged("a field is missing"))?;
            addresses.push(String::from_utf8(address.to_vec()).map_err(|_| damaged("an address is not UTF-8"))?);
        }
        let principal = principal_of(&certificate, &cluster)?;
        let known_time = Time(u64::from_le_bytes(*known_time));
        Ok(Identity { principal, cluster, enrolment_key, addresses, known_time, certificate, authority, key })
    }

    /// Writes it to a file that only the owner may read (mode 0600), durably.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        write_private(path, &self.to_bytes())
    }

    /// Reads such a file.
    pub fn load(path: &Path) -> Result<Identity, IdentityError> {
        Self::from_bytes(&read_private(path)?)
    }
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, tail) = rest.split_first_chunk::<4>()?;
    let (field, tail) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = tail;
    Some(field)
}
