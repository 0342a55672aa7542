//! TLS: version 1.3 only, ring's primitives, certificates of the cluster's own authority and of no other.
//!
//! Two checks differ from the library's. The connecting side knows its authority by the SHA-256 of its
//! certificate, which the scheduler presents with its own to devices that join; others have it, and so the scheduler's
//! part of a session's handshake fits into one datagram. And time: *not before* is not checked, because a
//! device's clock may say 1970; what can be proved is that a certificate has expired, for which the
//! latest of the device's clock, the build's time and the latest known cluster time counts.

use crate::{
    JOIN_ALPN, SESSION_ALPN,
    authority::{ServerIdentity, server_name},
    certificate::validity,
    clock::ClusterClock,
    identity::Identity,
    limits::CHAIN_CERTIFICATES_MAX,
};
use fleetwire_common::{envelope::keys::sha256, time::Time};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    CertificateError as Wrong, DigitallySignedStruct, DistinguishedName, Error as TlsError, RootCertStore,
    SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, SingleCertAndKey},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Why the other side's certificate is not trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The chain does not lead to the cluster's authority.
    #[error("the scheduler's certificate is not of this cluster: no authority with SHA-256 {} stands behind it", hex(.expected))]
    Authority {
        /// SHA-256 of the authority's certificate, DER.
        expected: [u8; 32],
    },
    /// It is of the cluster, but not the scheduler's.
    #[error("the certificate presented is not the scheduler's: expected one for `{expected}`")]
    NotTheScheduler {
        /// The reserved server name.
        expected: String,
    },
    /// It has expired.
    #[error("the certificate expired: it ended at {ended_at_ms} ms, it is {now_ms} ms or later")]
    Expired {
        /// Unix milliseconds.
        ended_at_ms: u64,
        /// Unix milliseconds.
        now_ms: u64,
    },
    /// Anything else that TLS says.
    #[error("the certificate is not acceptable: {0}")]
    Other(String),
}

/// Where the connecting side's verifier writes down what it found: TLS itself passes on only an alert.
#[derive(Clone, Debug, Default)]
pub(crate) struct Finding(Arc<Mutex<Option<TrustError>>>);

impl Finding {
    pub(crate) fn take(&self) -> Option<TrustError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, error: TrustError) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

/// Whom the connecting side looks for, and as whom.
pub(crate) struct Expected<'a> {
    pub(crate) cluster: &'a str,
    pub(crate) authority_sha256: [u8; 32],
    /// It is not earlier than this.
    pub(crate) known_time: Time,
    /// `None` on the joining protocol.
    pub(crate) identity: Option<&'a Identity>,
}

/// The listener's configuration: both protocols; client certificates are asked for, and checked when one
/// comes. Whoever comes without one gets no further than joining.
pub(crate) fn server_config(server: &ServerIdentity, clock: &ClusterClock) -> Result<QuicServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let authority = CertificateDer::from(server.authority.clone());
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    // §transport-1
    let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| TlsError::General(error.to_string()))?;
    let check = ClientCheck { inner, clock: clock.clone() };
    let leaf = CertificateDer::from(server.certificate.clone());
    let session = Arc::new(server.key.for_tls(vec![leaf.clone()])?);
    let joining = Arc::new(server.key.for_tls(vec![leaf, authority])?);
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(check))
        .with_cert_resolver(Arc::new(Presented { session, joining }));
    // §version-1
    config.alpn_protocols = vec![SESSION_ALPN.to_vec(), JOIN_ALPN.to_vec()];
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    QuicServerConfig::try_from(config).map_err(|error| TlsError::General(error.to_string()))
}

/// What the scheduler shows of itself: to devices that join, its authority as well.
#[derive(Debug)]
struct Presented {
    session: Arc<CertifiedKey>,
    joining: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Presented {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let joins = hello.alpn().is_some_and(|mut protocols| protocols.any(|protocol| protocol == JOIN_ALPN));
        Some(Arc::clone(if joins { &self.joining } else { &self.session }))
    }
}

/// The connecting side's configuration, the name it asks for, and where its verifier says what it found.
pub(crate) fn client_config(expected: &Expected<'_>) -> Result<(QuicClientConfig, String, Finding), TlsError> {
    let authority = expected.identity.map(|identity| CertificateDer::from(identity.authority.clone()));
    client_config_for(expected, if authority.is_some() { SESSION_ALPN } else { JOIN_ALPN }, authority)
}

/// The same for a given protocol, by someone who has the authority's certificate or not.
pub(crate) fn client_config_for(
    expected: &Expected<'_>,
    protocol: &[u8],
    authority: Option<CertificateDer<'static>>,
) -> Result<(QuicClientConfig, String, Finding), TlsError> {
    let provider = Arc::new(ring::default_provider());
    let finding = Finding::default();
    let name = server_name(expected.cluster);
    let check = ServerCheck {
        authority_sha256: expected.authority_sha256,
        authority,
        known_time: expected.known_time,
        name: name.clone(),
        provider: provider.clone(),
        finding: finding.clone(),
    };
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(check));
    let mut config = match expected.identity {
        Some(identity) => {
            let chain = vec![CertificateDer::from(identity.certificate.clone())];
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.key.for_tls(chain)?)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    config.enable_early_data = false;
    config.resumption = Resumption::disabled();
    let config = QuicClientConfig::try_from(config).map_err(|error| TlsError::General(error.to_string()))?;
    Ok((config, name, finding))
}

/// The connecting side's check of the scheduler's certificate.
#[derive(Debug)]
struct ServerCheck {
    authority_sha256: [u8; 32],
    /// Who has joined has it.
    authority: Option<CertificateDer<'static>>,
    known_time: Time,
    name: String,
    provider: Arc<CryptoProvider>,
    finding: Finding,
}

impl ServerCheck {
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let pinned = |certificate: &&CertificateDer<'_>| sha256(certificate) == self.authority_sha256;
        let authority = self.authority.iter().chain(chain.iter().take(CHAIN_CERTIFICATES_MAX)).find(pinned);
        let authority = authority.ok_or(TlsError::InvalidCertificate(Wrong::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| TlsError::General(error.to_string()))?;
        inner.verify_server_cert(leaf, &[], name, &[], trusted_time(now, self.known_time, leaf))
    }

    fn explain(&self, error: &TlsError) -> TrustError {
        match error {
            TlsError::InvalidCertificate(Wrong::UnknownIssuer | Wrong::BadSignature) => {
                TrustError::Authority { expected: self.authority_sha256 }
            }
            TlsError::InvalidCertificate(
                Wrong::NotValidForName
                | Wrong::NotValidForNameContext { .. }
                | Wrong::InvalidPurpose
                | Wrong::InvalidPurposeContext { .. },
            ) => TrustError::NotTheScheduler { expected: self.name.clone() },
            TlsError::InvalidCertificate(Wrong::ExpiredContext { time, not_after }) => {
                TrustError::Expired { ended_at_ms: not_after.as_secs() * 1000, now_ms: time.as_secs() * 1000 }
            }
            other => TrustError::Other(other.to_string()),
        }
    }
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        self.check(end_entity, intermediates, server_name, now)
            .inspect_err(|error| self.finding.set(self.explain(error)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The listener's check of a principal's certificate: the library's, under cluster time.
#[derive(Debug)]
struct ClientCheck {
    inner: Arc<dyn ClientCertVerifier>,
    clock: ClusterClock,
}

impl ClientCertVerifier for ClientCheck {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        // The authority signs principals directly: what else a peer presents is not looked at.
        let now = trusted_time(now, self.clock.now(), end_entity);
        self.inner.verify_client_cert(end_entity, &[], now).map_err(|error| match error {
            // An authority of the same name with another key is another cluster's.
            TlsError::InvalidCertificate(Wrong::BadSignature) => TlsError::InvalidCertificate(Wrong::UnknownIssuer),
            other => other,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

// §join-1
/// The time under which a certificate is checked: the latest that is known, and never before the
/// certificate itself begins.
fn trusted_time(now: UnixTime, known: Time, leaf: &CertificateDer<'_>) -> UnixTime {
    let begins = validity(leaf).map_or(0, |(begins, _)| begins.0 / 1_000_000);
    let latest = now.as_secs().max(known.0 / 1_000_000).max(built_at_s()).max(begins);
    UnixTime::since_unix_epoch(Duration::from_secs(latest))
}

/// When this crate was built, Unix seconds.
fn built_at_s() -> u64 {
    env!("FLEETWIRE_BUILT_AT_S").parse().unwrap_or(0)
}

fn hex(bytes: &[u8; 32]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
