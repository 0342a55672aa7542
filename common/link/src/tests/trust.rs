//! Who is trusted as what: certificates of other clusters, none, the wrong kind, the wrong time.

use super::*;
use crate::{JOIN_ALPN, SESSION_ALPN, connect::Dialed, frames::FrameError, tls::Expected};
use fleetwire_common::envelope::handshake::HandshakeError;
use rustls::pki_types::CertificateDer;

async fn try_connect(cluster: &Cluster, identity: &Identity) -> Result<Connected, ConnectError> {
    let clock = ClusterClock::starting_at(Time(5_000_000));
    let addresses = [cluster.address.clone()];
    soon(connect(&addresses, identity, &hello_info(), &clock, &LinkConfig::default())).await
}

// §transport-1
#[tokio::test]
async fn a_certificate_of_another_cluster_is_refused_by_both_sides_with_the_cause() {
    let mut cluster = Cluster::start();
    let other = Cluster::start();
    let mut identity = other.identity("pi-1");
    // The device notices first: the scheduler is not its cluster's.
    let error = try_connect(&cluster, &identity).await.unwrap_err();
    let expected = other.authority.sha256();
    assert!(
        matches!(&error, ConnectError::Untrusted { error: TrustError::Authority { expected: found }, .. } if *found == expected),
        "{error}"
    );
    assert!(!error.is_passing());
    cluster.refused().await;
    // A device that does not care is refused by the scheduler, also when both clusters have one name.
    identity.authority = cluster.authority.certificate().to_vec();
    let error = try_connect(&cluster, &identity).await.unwrap_err();
    assert!(matches!(&error, ConnectError::Closed { closed: LinkClosed::Tls { .. }, .. }), "{error}");
    let refused = cluster.refused().await;
    assert!(matches!(refused, AcceptError::ForeignCertificate { .. }), "{refused}");
    // The listener goes on.
    cluster.session("pi-2").await;
}

// §transport-3
#[tokio::test]
async fn a_certificate_of_another_clusters_name_is_refused() {
    let mut cluster = Cluster::start();
    // The right authority, but a principal of another cluster: what an authority shared by mistake would make.
    let (certificate, key) = (cluster.authority.certificate_pem(), cluster.authority.key_pem());
    let twin = Authority::from_pem("other-cluster", &certificate, &key).unwrap();
    let key = DeviceKey::generate().unwrap();
    let enrolment = cluster.root.enrolment_key(&agent("pi-1"));
    let mut identity = twin.issue(&agent("pi-1"), key, enrolment, vec![], NOW).unwrap();
    identity.cluster = "test-cluster".into();
    let error = try_connect(&cluster, &identity).await.unwrap_err();
    assert_eq!(error.code(), fb::ErrorCode::Authorization, "{error}");
    let refused = cluster.refused().await;
    assert!(matches!(refused, AcceptError::Certificate(CertificateError::Principal { .. })), "{refused}");
}

#[tokio::test]
async fn a_session_without_a_certificate_is_closed_before_anything_is_read() {
    let mut cluster = Cluster::start();
    let Dialed { endpoint: _endpoint, connection } = dial_raw(&cluster, SESSION_ALPN).await;
    let closed = LinkClosed::from_transport(soon(connection.closed()).await);
    assert_eq!(closed.code(), fb::ErrorCode::Authorization, "{closed}");
    assert!(closed.to_string().contains("without a certificate"), "{closed}");
    assert!(matches!(cluster.refused().await, AcceptError::NoCertificate));
}

// §transport-2
#[tokio::test]
async fn an_agents_certificate_cannot_pass_for_the_schedulers() {
    let cluster = Cluster::start();
    let identity = cluster.identity("pi-1");
    let thief = cluster.identity("thief");
    // A genuine certificate of the cluster and its key, used to serve.
    let server = ServerIdentity {
        cluster: "test-cluster".into(),
        certificate: thief.certificate.clone(),
        authority: thief.authority.clone(),
        key: thief.key.clone(),
    };
    let authority = Authority::create("unused", NOW).unwrap();
    let fake = Cluster::serving(authority, &server, LinkConfig::default());
    let error = try_connect(&fake, &identity).await.unwrap_err();
    let expected = "scheduler.test-cluster.fleetwire".to_owned();
    assert!(
        matches!(&error, ConnectError::Untrusted { error: TrustError::NotTheScheduler { expected: found }, .. } if *found == expected),
        "{error}"
    );
    // Nor can it let devices in.
    let token = JoinToken { addresses: vec![fake.address.clone()], ..cluster.token(1) };
    let key = DeviceKey::generate().unwrap();
    let error = soon(enrol(&token, &agent("x").name, &key, &LinkConfig::default())).await.unwrap_err();
    assert!(
        matches!(
            &error,
            EnrolError::Connect(ConnectError::Untrusted { error: TrustError::NotTheScheduler { .. }, .. })
        ),
        "{error}"
    );
}

#[tokio::test]
async fn the_schedulers_certificate_cannot_open_a_session() {
    let mut cluster = Cluster::start();
    let server = cluster.authority.certify_server(NOW).unwrap();
    let mut identity = cluster.identity("pi-1");
    identity.certificate = server.certificate.clone();
    identity.key = server.key.clone();
    try_connect(&cluster, &identity).await.unwrap_err();
    let refused = cluster.refused().await;
    assert_ne!(refused.code(), fb::ErrorCode::None, "{refused}");
}

#[tokio::test]
async fn a_wrong_enrolment_key_is_refused_with_the_principals_name() {
    let mut cluster = Cluster::start();
    let mut identity = cluster.identity("pi-1");
    identity.enrolment_key = Secret::new([9; 32]);
    let error = try_connect(&cluster, &identity).await.unwrap_err();
    assert_eq!(error.code(), fb::ErrorCode::Authorization, "{error}");
    let refused = cluster.refused().await;
    assert!(matches!(&refused, AcceptError::Hello { principal, .. } if *principal == agent("pi-1")), "{refused}");
}

#[tokio::test]
async fn a_principal_without_keys_is_refused() {
    struct Nobody;
    impl Keys for Nobody {
        fn enrolment_key(&self, _: &Principal) -> Option<Secret> {
            None
        }
    }
    let mut cluster = Cluster::start();
    let identity = cluster.identity("pi-1");
    let server = cluster.authority.certify_server(NOW).unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let listener =
        Listener::bind(any, &server, Arc::new(Nobody), cluster.clock.clone(), LinkConfig::default()).unwrap();
    cluster.address = listener.local_addr().unwrap().to_string();
    cluster.listener = listener;
    try_connect(&cluster, &identity).await.unwrap_err();
    let refused = cluster.refused().await;
    assert!(matches!(&refused, AcceptError::NoKeys { principal } if *principal == agent("pi-1")), "{refused}");
}

#[tokio::test]
async fn an_authentic_refusal_reaches_the_device_with_its_code() {
    let mut cluster = Cluster::start();
    let identity = cluster.identity("pi-1");
    let refusing = async {
        let Accepted::Session(pending) = cluster.listener.accept().await.unwrap() else { panic!("no session") };
        assert_eq!((pending.principal.clone(), pending.hello().software.as_str()), (agent("pi-1"), "test 1"));
        pending.refuse(NOW, fb::ErrorCode::AlreadyConnected, "another device has this identity");
    };
    let clock = ClusterClock::starting_at(NOW);
    let (addresses, info, config) = ([cluster.address.clone()], hello_info(), LinkConfig::default());
    let (error, ()) = tokio::join!(soon(connect(&addresses, &identity, &info, &clock, &config)), refusing);
    let error = error.unwrap_err();
    let refused = HandshakeError::Refused {
        code: fb::ErrorCode::AlreadyConnected,
        message: "another device has this identity".into(),
    };
    assert!(matches!(&error, ConnectError::Handshake { error, .. } if *error == refused), "{error}");
    assert!(error.is_passing());
}

// §join-1
#[tokio::test]
async fn a_clock_that_says_1970_does_not_matter_and_an_expired_certificate_does() {
    // Certificates that begin in 2027, by the cluster's time; the machine's clock is surely earlier or later.
    let year = 365 * 24 * 3600 * 1_000_000u64;
    let far = Time(NOW.0 + 100 * year);
    let authority = Authority::create("test-cluster", NOW).unwrap();
    let server = authority.certify_server(far).unwrap();
    let mut cluster = Cluster::serving(authority, &server, LinkConfig::default());
    // Not before is not checked: the certificate begins a century ahead of every clock here.
    let mut identity = cluster.identity("pi-1");
    let (addresses, info, config) = ([cluster.address.clone()], hello_info(), LinkConfig::default());
    let clock = ClusterClock::starting_at(Time(0));
    let connecting = connect(&addresses, &identity, &info, &clock, &config);
    let accepting = async {
        let Accepted::Session(pending) = cluster.listener.accept().await.unwrap() else { panic!("no session") };
        pending.welcome(&cluster.epoch, &welcome_info(cluster.clock.now())).unwrap()
    };
    let (connected, _link) = tokio::join!(soon(connecting), soon(accepting));
    connected.unwrap();
    // What is known to be later than its end proves that it expired.
    identity.known_time = Time(far.0 + 2 * year);
    let error = try_connect(&cluster, &identity).await.unwrap_err();
    assert!(matches!(&error, ConnectError::Untrusted { error: TrustError::Expired { .. }, .. }), "{error}");
}

#[tokio::test]
async fn an_expired_client_certificate_is_refused_by_cluster_time() {
    let mut cluster = Cluster::start();
    let identity = cluster.identity("pi-1");
    let two_years = 2 * 365 * 24 * 3600 * 1_000_000i64;
    cluster.clock.set_offset_us(cluster.clock.offset_us() + two_years);
    try_connect(&cluster, &identity).await.unwrap_err();
    let refused = cluster.refused().await;
    assert!(matches!(refused, AcceptError::ExpiredCertificate { .. }), "{refused}");
}

#[test]
fn an_identity_survives_its_file_and_damage_is_noticed() {
    let authority = Authority::create("c-1", NOW).unwrap();
    let key = DeviceKey::generate().unwrap();
    let addresses = vec!["[::1]:7450".to_owned(), "host:7450".to_owned()];
    let identity = authority.issue(&agent("pi-1"), key, Secret::new([5; 32]), addresses.clone(), NOW).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("identity");
    identity.save(&path).unwrap();
    identity.save(&path).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file was left behind");
    #[cfg(unix)]
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions()) & 0o777,
        0o600
    );
    let read = Identity::load(&path).unwrap();
    assert_eq!((&read.principal, &read.cluster, &read.addresses), (&agent("pi-1"), &"c-1".to_owned(), &addresses));
    assert_eq!((read.known_time, read.enrolment_key.bytes()), (NOW, &[5; 32]));
    assert_eq!(read.authority_sha256(), authority.sha256());
    let bytes = identity.to_bytes();
    for at in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1;
        assert!(Identity::from_bytes(&changed).is_err(), "a flipped bit at {at} was not noticed");
        assert!(Identity::from_bytes(&bytes[..at]).is_err());
    }
    assert!(!format!("{identity:?}").contains("5, 5, 5"), "secrets are not printed");
}

#[test]
fn an_authority_survives_its_files_and_refuses_those_of_others() {
    let authority = Authority::create("c-1", NOW).unwrap();
    let (certificate, key) = (authority.certificate_pem(), authority.key_pem());
    let read = Authority::from_pem("c-1", &certificate, &key).unwrap();
    assert_eq!(read.sha256(), authority.sha256());
    let other = Authority::create("c-1", NOW).unwrap();
    let mixed = Authority::from_pem("c-1", &other.certificate_pem(), &key).unwrap_err();
    assert!(matches!(mixed, AuthorityError::Pair), "{mixed}");
    assert!(matches!(Authority::from_pem("c-1", "hello", &key).unwrap_err(), AuthorityError::Pem("certificate")));
    assert!(matches!(Authority::create("under_score..", NOW).unwrap_err(), AuthorityError::ClusterDns(_)));
    assert!(matches!(Authority::create("a b", NOW).unwrap_err(), AuthorityError::ClusterName(_)));
    let server = authority.certify_server(NOW).unwrap();
    let again = ServerIdentity::from_pem(&authority, &server.certificate_pem(), &server.key_pem()).unwrap();
    assert_eq!(again.expires_at().unwrap(), NOW + crate::limits::CERTIFICATE_LIFETIME);
}

// §join-2
#[test]
fn certificate_requests_prove_their_key_and_nothing_else() {
    let key = DeviceKey::generate().unwrap();
    let request = key.csr().unwrap();
    assert_eq!(Csr::parse(&request).unwrap().key_sha256, key.key_sha256());
    for at in 0..request.len() {
        let mut changed = request.clone();
        changed[at] ^= 4;
        assert!(Csr::parse(&changed).is_err(), "a flipped bit at {at} was not noticed");
        assert!(Csr::parse(&request[..at]).is_err());
    }
    // Whatever names a request asks for, the certificate has the one that the scheduler decided.
    let mut params = rcgen::CertificateParams::new(vec!["scheduler.c-1.fleetwire".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let greedy = params.serialize_request(&*key.pair().unwrap()).unwrap();
    let csr = Csr::parse(greedy.der()).unwrap();
    let authority = Authority::create("c-1", NOW).unwrap();
    let certificate = authority.certify(&csr, &agent("pi-1"), NOW).unwrap();
    assert_eq!(crate::certificate::principal_of(&certificate, "c-1"), Ok(agent("pi-1")));
    // Another kind of key is refused.
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&pair).unwrap();
    assert_eq!(Csr::parse(request.der()), Err(CsrError::Algorithm));
}

/// A TLS connection without a certificate, under whatever protocol.
pub(super) async fn dial_raw(cluster: &Cluster, protocol: &[u8]) -> Dialed {
    try_dial_raw(cluster, protocol).await.unwrap()
}

pub(super) async fn try_dial_raw(cluster: &Cluster, protocol: &[u8]) -> Result<Dialed, quinn::ConnectionError> {
    let expected = Expected {
        cluster: "test-cluster",
        authority_sha256: cluster.authority.sha256(),
        known_time: NOW,
        identity: None,
    };
    let authority = (protocol != JOIN_ALPN).then(|| CertificateDer::from(cluster.authority.certificate().to_vec()));
    let (crypto, name, _) = crate::tls::client_config_for(&expected, protocol, authority).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let settings = quinn::ClientConfig::new(Arc::new(crypto));
    let connecting = endpoint.connect_with(settings, cluster.address.parse().unwrap(), &name).unwrap();
    Ok(Dialed { connection: soon(connecting).await?, endpoint })
}

/// A connection of the joining protocol from a given address of this machine.
pub(super) async fn dial_from(from: &str, to: String, authority_sha256: [u8; 32]) -> Option<Dialed> {
    let expected = Expected { cluster: "test-cluster", authority_sha256, known_time: NOW, identity: None };
    let (crypto, name, _) = crate::tls::client_config(&expected).unwrap();
    let endpoint = quinn::Endpoint::client(from.parse().unwrap()).unwrap();
    let settings = quinn::ClientConfig::new(Arc::new(crypto));
    let connection = endpoint.connect_with(settings, to.parse().unwrap(), &name).unwrap().await.ok()?;
    Some(Dialed { connection, endpoint })
}

// The authority's certificate would not fit into the first datagram of the scheduler's part, and a second one makes the
// transport hold 12 KB more for each connection.
#[tokio::test]
async fn the_scheduler_shows_its_authority_to_those_who_join_and_to_no_others() {
    let cluster = Cluster::start();
    for (protocol, certificates) in [(SESSION_ALPN, 1), (JOIN_ALPN, 2)] {
        let dialed = dial_raw(&cluster, protocol).await;
        let shown = dialed.connection.peer_identity().unwrap().downcast::<Vec<CertificateDer<'_>>>().unwrap();
        assert_eq!(shown.len(), certificates);
    }
}

#[test]
fn frame_errors_have_codes() {
    assert_eq!(FrameError::TooLong { found: 9, max: 1 }.code(), fb::ErrorCode::TooLarge);
    assert_eq!(LinkClosed::from(FrameError::TooShort { found: 9 }).code(), fb::ErrorCode::MessageFormat);
}
