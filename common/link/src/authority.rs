//! The cluster authority (CA): it makes every certificate of a cluster, and decides every name in them.
//!
//! Two kinds of certificate exist. The scheduler's bears the reserved server name and may only serve; a
//! principal's bears exactly one SPIFFE URI and may only connect. Neither can be used as the other.

use crate::{
    certificate::{CertificateError, Csr, validity},
    identity::{DeviceKey, Identity, KeyError},
    limits::{AUTHORITY_LIFETIME, CERTIFICATE_BACKDATE, CERTIFICATE_LIFETIME},
    pem,
};
use fleetwire_common::{
    envelope::keys::{Secret, sha256},
    ids::{Name, NameError, Principal},
    time::Time,
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::{CertificateDer, ServerName};
use std::time::Duration;
use time::OffsetDateTime;
use zeroize::Zeroizing;

/// A cluster's authority: its certificate and its private key.
#[derive(Debug)]
pub struct Authority {
    cluster: String,
    certificate: Vec<u8>,
    key: DeviceKey,
}

/// What a scheduler serves with: its certificate, the authority's, and its private key.
#[derive(Clone, Debug)]
pub struct ServerIdentity {
    /// The cluster's name.
    pub cluster: String,
    pub(crate) certificate: Vec<u8>,
    pub(crate) authority: Vec<u8>,
    pub(crate) key: DeviceKey,
}

/// Why the authority does not do as it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The cluster's name does not fit a name.
    #[error("cluster name: {0}")]
    ClusterName(#[from] NameError),
    /// The cluster's name is a name, but cannot be part of a server name.
    #[error("cluster name `{0}` cannot be part of a DNS name: use letters, digits and `-`, at most 63 of them")]
    ClusterDns(String),
    /// The files hold no certificate or no key.
    #[error("the text holds no {0} in PEM")]
    Pem(&'static str),
    /// The authority's certificate and key are not a pair, or of another cluster.
    #[error("the authority's certificate is not for its key")]
    Pair,
    /// A key that cannot be made or read.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// A certificate that does not read.
    #[error("{0}")]
    Certificate(#[from] CertificateError),
    /// Signing failed.
    #[error("making a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

// §transport-2
/// The server name that only a scheduler's certificate bears.
pub(crate) fn server_name(cluster: &str) -> String {
    format!("scheduler.{cluster}.fleetwire")
}

impl Authority {
    /// Makes a new authority for a cluster of that name; `now` is the beginning of its validity.
    pub fn create(cluster: &str, now: Time) -> Result<Authority, AuthorityError> {
        Name::new(cluster)?;
        if ServerName::try_from(server_name(cluster)).is_err() {
            return Err(AuthorityError::ClusterDns(cluster.to_owned()));
        }
        let key = DeviceKey::generate()?;
        let mut params = params(now, AUTHORITY_LIFETIME)?;
        // Two clusters may have one name: the key's hash tells their authorities apart.
        let short = data_encoding::HEXLOWER.encode(key.key_sha256().get(..8).unwrap_or_default());
        params.distinguished_name.push(DnType::CommonName, format!("fleetwire {cluster} authority {short}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&*key.pair()?)?.der().to_vec();
        Ok(Authority { cluster: cluster.to_owned(), certificate, key })
    }

    /// Reads an authority from the two files that [`Authority::certificate_pem`] and
    /// [`Authority::key_pem`] make.
    pub fn from_pem(cluster: &str, certificate: &str, key: &str) -> Result<Authority, AuthorityError> {
        Name::new(cluster)?;
        let certificate = pem::certificate(certificate).ok_or(AuthorityError::Pem("certificate"))?;
        let key = DeviceKey::from_bytes(&pem::private_key(key).ok_or(AuthorityError::Pem("private key"))?)?;
        let authority = Authority { cluster: cluster.to_owned(), certificate, key };
        crate::certificate::check_key(&authority.certificate, authority.key.public_key())
            .map_err(|_| AuthorityError::Pair)?;
        Ok(authority)
    }

    /// The certificate's PEM text.
    pub fn certificate_pem(&self) -> String {
        pem::encode(pem::CERTIFICATE, &self.certificate).to_string()
    }

    /// The private key's PEM text, wiped when dropped.
    pub fn key_pem(&self) -> Zeroizing<String> {
        pem::encode(pem::PRIVATE_KEY, self.key.bytes())
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// SHA-256 of the certificate: what join tokens pin.
    pub fn sha256(&self) -> [u8; 32] {
        sha256(&self.certificate)
    }

    /// Makes a principal's certificate (DER) for the key of that request, valid for a year.
    pub fn certify(&self, csr: &Csr, principal: &Principal, now: Time) -> Result<Vec<u8>, AuthorityError> {
        let mut params = params(now, CERTIFICATE_LIFETIME)?;
        let uri = rcgen::string::Ia5String::try_from(principal.uri(&self.cluster))?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.distinguished_name.push(DnType::CommonName, principal.to_string());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let public_key = SubjectPublicKeyInfo::from_der(&csr.public_key)?;
        Ok(params.signed_by(&public_key, &issuer(&self.certificate, &*self.key.pair()?)?)?.der().to_vec())
    }

    /// Makes the scheduler's certificate, valid for a year, with a new key.
    pub fn certify_server(&self, now: Time) -> Result<ServerIdentity, AuthorityError> {
        let key = DeviceKey::generate()?;
        let mut params = params(now, CERTIFICATE_LIFETIME)?;
        let name = rcgen::string::Ia5String::try_from(server_name(&self.cluster))?;
        params.subject_alt_names = vec![SanType::DnsName(name)];
        params.distinguished_name.push(DnType::CommonName, "scheduler");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate =
            params.signed_by(&*key.pair()?, &issuer(&self.certificate, &*self.key.pair()?)?)?.der().to_vec();
        let authority = self.certificate.clone();
        Ok(ServerIdentity { cluster: self.cluster.clone(), certificate, authority, key })
    }

    /// Makes a whole identity for a key of this machine: the local operator's, without a session.
    pub fn issue(
        &self,
        principal: &Principal,
        key: DeviceKey,
        enrolment_key: Secret,
        addresses: Vec<String>,
        now: Time,
    ) -> Result<Identity, AuthorityError> {
        let csr = Csr { key_sha256: key.key_sha256(), public_key: key.public_key().to_vec() };
        Ok(Identity {
            principal: principal.clone(),
            cluster: self.cluster.clone(),
            enrolment_key,
            addresses,
            known_time: now,
            certificate: self.certify(&csr, principal, now)?,
            authority: self.certificate.clone(),
            key,
        })
    }
}

impl ServerIdentity {
    /// Reads one from the two files that [`ServerIdentity::certificate_pem`] and
    /// [`ServerIdentity::key_pem`] make.
    pub fn from_pem(authority: &Authority, certificate: &str, key: &str) -> Result<ServerIdentity, AuthorityError> {
        let certificate = pem::certificate(certificate).ok_or(AuthorityError::Pem("certificate"))?;
        let key = DeviceKey::from_bytes(&pem::private_key(key).ok_or(AuthorityError::Pem("private key"))?)?;
        crate::certificate::check_key(&certificate, key.public_key()).map_err(|_| AuthorityError::Pair)?;
        let (cluster, authority) = (authority.cluster.clone(), authority.certificate.clone());
        Ok(ServerIdentity { cluster, certificate, authority, key })
    }

    /// The certificate's PEM text.
    pub fn certificate_pem(&self) -> String {
        pem::encode(pem::CERTIFICATE, &self.certificate).to_string()
    }

    /// The private key's PEM text, wiped when dropped.
    pub fn key_pem(&self) -> Zeroizing<String> {
        pem::encode(pem::PRIVATE_KEY, self.key.bytes())
    }

    /// Until when the certificate is valid. A scheduler makes a new one when less than half of its year
    /// is left at a start.
    pub fn expires_at(&self) -> Result<Time, CertificateError> {
        validity(&self.certificate).map(|(_, end)| end)
    }
}

fn issuer<'k>(certificate: &[u8], key: &'k KeyPair) -> Result<Issuer<'static, &'k KeyPair>, rcgen::Error> {
    Issuer::from_ca_cert_der(&CertificateDer::from(certificate), key)
}

/// What all certificates have in common: a validity and a random serial number.
fn params(now: Time, lifetime: Duration) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = date(Time(now.0.saturating_sub(CERTIFICATE_BACKDATE.as_micros() as u64)));
    params.not_after = date(now + lifetime);
    let mut serial = [0u8; 16];
    getrandom::fill(&mut serial).map_err(|_| rcgen::Error::RingUnspecified)?;
    // Positive, as RFC 5280 section 4.1.2.2 asks.
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.is_ca = IsCa::ExplicitNoCa;
    Ok(params)
}

fn date(time: Time) -> OffsetDateTime {
    let seconds = i64::try_from(time.0 / 1_000_000).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
