//! Reading certificates and certificate requests. Whatever a peer wrote in them is checked here, and of a
//! request nothing but its public key is ever used.

use fleetwire_common::{envelope::keys::sha256, ids::Principal, time::Time};
use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::GeneralName,
    oid_registry::OID_SIG_ED25519,
    prelude::{FromDer, X509Certificate},
};

/// Why a certificate names no principal of this cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not a certificate.
    #[error("not a well-formed X.509 certificate")]
    Malformed,
    /// None or several names where exactly one may be.
    #[error("the certificate has {found} names: expected exactly one URI")]
    Names {
        /// How many there are.
        found: usize,
    },
    /// Its one name is no principal of this cluster.
    #[error("the certificate names `{found}`: expected a principal of cluster `{cluster}`")]
    Principal {
        /// Its name, cut to 256 characters.
        found: String,
        /// The cluster.
        cluster: String,
    },
    /// It holds another key than was asked for.
    #[error("the certificate is for another key")]
    Key,
    /// The authority did not sign it.
    #[error("the cluster's authority did not sign the certificate")]
    Signature,
}

/// A certificate request whose own signature was checked: whoever made it holds the private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csr {
    /// SHA-256 of the public key (DER, SubjectPublicKeyInfo).
    pub key_sha256: [u8; 32],
    pub(crate) public_key: Vec<u8>,
}

/// What stands before the 64 bytes of an Ed25519 signature (RFC 8410): its algorithm, and a bit string's head.
const SIGNATURE_HEAD: &[u8] = &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x41, 0x00];

/// Why a certificate request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Not a request.
    #[error("not a well-formed PKCS #10 certificate request")]
    Malformed,
    /// Another kind of key than the cluster's certificates have.
    #[error("the certificate request's key is not an Ed25519 key")]
    Algorithm,
    /// Not signed with the key that it asks a certificate for.
    #[error("the certificate request's own signature is wrong")]
    Signature,
}

impl Csr {
    /// Reads a request (DER, PKCS #10) and checks its own signature. Names and extensions that it asks for
    /// are not looked at: the scheduler alone decides them.
    pub fn parse(der: &[u8]) -> Result<Csr, CsrError> {
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
        let key = &request.certification_request_info.subject_pki;
        if !rest.is_empty() {
            return Err(CsrError::Malformed);
        }
        if key.algorithm.algorithm != OID_SIG_ED25519 || request.signature_algorithm.algorithm != OID_SIG_ED25519 {
            return Err(CsrError::Algorithm);
        }
        // The parser is lenient with what stands between the signed part and the signature.
        if !der.len().checked_sub(74).and_then(|at| der.get(at..)).is_some_and(|tail| tail.starts_with(SIGNATURE_HEAD))
        {
            return Err(CsrError::Malformed);
        }
        request.verify_signature().map_err(|_| CsrError::Signature)?;
        Ok(Csr { key_sha256: sha256(key.raw), public_key: key.raw.to_vec() })
    }
}

/// The principal that a certificate names. It must bear exactly one name, a URI that is exactly one of
/// this cluster's: names are compared whole, never by pattern.
pub(crate) fn principal_of(der: &[u8], cluster: &str) -> Result<Principal, CertificateError> {
    let certificate = parse(der)?;
    let names = certificate.subject_alternative_name().map_err(|_| CertificateError::Malformed)?;
    let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let [GeneralName::URI(uri)] = names else { return Err(CertificateError::Names { found: names.len() }) };
    Principal::from_uri(uri, cluster).filter(|principal| principal.uri(cluster) == *uri).ok_or_else(|| {
        CertificateError::Principal { found: uri.chars().take(256).collect(), cluster: cluster.to_owned() }
    })
}

/// Checks a certificate that the scheduler made for us: our key, our name, its authority's signature.
pub(crate) fn check_issued(
    der: &[u8],
    authority: &[u8],
    public_key: &[u8],
    principal: &Principal,
    cluster: &str,
) -> Result<(), CertificateError> {
    check_key(der, public_key)?;
    let certificate = parse(der)?;
    let found = principal_of(der, cluster)?;
    if found != *principal {
        return Err(CertificateError::Principal { found: found.to_string(), cluster: cluster.to_owned() });
    }
    let authority = parse(authority)?;
    certificate.verify_signature(Some(authority.public_key())).map_err(|_| CertificateError::Signature)
}

/// Checks that a certificate is for that public key.
pub(crate) fn check_key(der: &[u8], public_key: &[u8]) -> Result<(), CertificateError> {
    if parse(der)?.public_key().raw == public_key { Ok(()) } else { Err(CertificateError::Key) }
}

/// When a certificate begins and ends to be valid.
pub(crate) fn validity(der: &[u8]) -> Result<(Time, Time), CertificateError> {
    let certificate = parse(der)?;
    let validity = certificate.validity();
    let time = |seconds: i64| Time(u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000));
    Ok((time(validity.not_before.timestamp()), time(validity.not_after.timestamp())))
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(CertificateError::Malformed),
    }
}
