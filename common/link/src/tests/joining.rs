//! Joining: tokens right and wrong, answers lost, requests that lie.

use super::*;

async fn join(token: &JoinToken, name: &str, key: &DeviceKey) -> Result<Identity, EnrolError> {
    let config = LinkConfig { handshake_timeout: std::time::Duration::from_secs(3), ..LinkConfig::default() };
    soon(enrol(token, &agent(name).name, key, &config)).await
}

impl Cluster {
    /// Opens the next request to join under the token's secret.
    async fn joining(&mut self) -> Result<Enrolling, JoinError> {
        let Accepted::Joining(joining) = self.accept().await else { panic!("expected a device that joins") };
        let secret = self.root.token_secret(joining.token, Time(NOW.0 * 2));
        joining.open(&secret)
    }

    /// Grants the next request.
    async fn grant(&mut self) -> [u8; 32] {
        let request = self.joining().await.unwrap();
        let principal = Principal { role: request.role, name: Name::new(&request.name).unwrap() };
        let (key, enrolment) = (request.csr.key_sha256, self.root.enrolment_key(&principal));
        request.certify(&self.authority, &principal, &enrolment, NOW).unwrap();
        key
    }
}

#[tokio::test]
async fn a_device_joins_and_opens_a_session_with_what_it_got() {
    let mut cluster = Cluster::start();
    let (token, key) = (cluster.token(3), DeviceKey::generate().unwrap());
    let (identity, granted) = tokio::join!(join(&token, "pi-1", &key), cluster.grant());
    let identity = identity.unwrap();
    assert_eq!((granted, &identity.principal), (key.key_sha256(), &agent("pi-1")));
    let identity = Identity::from_bytes(&identity.to_bytes()).unwrap();
    let (addresses, info, config) = (identity.addresses.clone(), hello_info(), LinkConfig::default());
    let clock = ClusterClock::from_wall();
    let connecting = connect(&addresses, &identity, &info, &clock, &config);
    let (agent, mut scheduler) = tokio::join!(soon(connecting), cluster.welcome());
    agent.unwrap().link.sender.send(status(1)).unwrap();
    assert_eq!(scheduler.receive(1, index_of).await, [1]);
}

#[tokio::test]
async fn a_token_of_another_clusters_authority_is_refused_by_the_device() {
    let cluster = Cluster::start();
    let token = JoinToken { authority_sha256: [7; 32], ..cluster.token(1) };
    let error = join(&token, "pi-1", &DeviceKey::generate().unwrap()).await.unwrap_err();
    assert!(
        matches!(
            &error,
            EnrolError::Connect(ConnectError::Untrusted { error: TrustError::Authority { expected }, .. }) if *expected == [7; 32]
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_wrong_token_secret_is_refused_and_the_listener_goes_on() {
    let mut cluster = Cluster::start();
    let token = JoinToken { secret: Secret::new([9; 32]), ..cluster.token(1) };
    let key = DeviceKey::generate().unwrap();
    let (joined, opened) = tokio::join!(join(&token, "pi-1", &key), cluster.joining());
    assert_eq!(opened.unwrap_err().code(), fb::ErrorCode::Authorization);
    assert_eq!(joined.unwrap_err().code(), fb::ErrorCode::Authorization);
    let good = cluster.token(1);
    let (joined, _) = tokio::join!(join(&good, "pi-1", &key), cluster.grant());
    joined.unwrap();
}

#[tokio::test]
async fn an_unknown_token_is_rejected_with_its_code() {
    let mut cluster = Cluster::start();
    let (token, key) = (cluster.token(99), DeviceKey::generate().unwrap());
    let rejecting = async {
        let Accepted::Joining(joining) = cluster.listener.accept().await.unwrap() else { panic!("no device") };
        assert_eq!(joining.token, TokenId(99));
        joining.reject(fb::ErrorCode::TokenUnknown, "there is no token 99");
    };
    let (joined, ()) = tokio::join!(join(&token, "pi-1", &key), rejecting);
    assert_eq!(joined.unwrap_err().code(), fb::ErrorCode::TokenUnknown);
}

#[tokio::test]
async fn a_refusal_is_authentic_and_typed() {
    let mut cluster = Cluster::start();
    let (token, key) = (cluster.token(1), DeviceKey::generate().unwrap());
    let refusing = async {
        let request = cluster.joining().await.unwrap();
        request.refuse(NOW, fb::ErrorCode::NameTaken, "pi-1 belongs to another key");
    };
    let (joined, ()) = tokio::join!(join(&token, "pi-1", &key), refusing);
    let error = joined.unwrap_err();
    assert!(matches!(&error, EnrolError::Refused { code: fb::ErrorCode::NameTaken, .. }), "{error}");
}

#[tokio::test]
async fn a_lost_answer_may_be_asked_for_again_with_the_same_key() {
    let mut cluster = Cluster::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("identity.key");
    let token = cluster.token(1);
    let key = DeviceKey::load_or_generate(&path).unwrap();
    let losing = async {
        let request = cluster.joining().await.unwrap();
        let key = request.csr.key_sha256;
        // The scheduler decides, then its answer is lost.
        drop(request);
        key
    };
    let (joined, first) = tokio::join!(join(&token, "pi-1", &key), losing);
    joined.unwrap_err();
    // The device restarts and asks again.
    let key = DeviceKey::load_or_generate(&path).unwrap();
    let (joined, second) = tokio::join!(join(&token, "pi-1", &key), cluster.grant());
    assert_eq!((joined.unwrap().principal, first), (agent("pi-1"), second));
}

// §join-4
#[tokio::test]
async fn a_certificate_for_another_name_or_key_is_not_accepted() {
    let mut cluster = Cluster::start();
    let (token, key) = (cluster.token(1), DeviceKey::generate().unwrap());
    let lying = async {
        let request = cluster.joining().await.unwrap();
        let enrolment = cluster.root.enrolment_key(&agent("pi-2"));
        request.certify(&cluster.authority, &agent("pi-2"), &enrolment, NOW).unwrap();
    };
    let (joined, ()) = tokio::join!(join(&token, "pi-1", &key), lying);
    let error = joined.unwrap_err();
    assert!(matches!(&error, EnrolError::Certificate(CertificateError::Principal { .. })), "{error}");
    let lying = async {
        let mut request = cluster.joining().await.unwrap();
        request.csr = Csr::parse(&DeviceKey::generate().unwrap().csr().unwrap()).unwrap();
        let enrolment = cluster.root.enrolment_key(&agent("pi-1"));
        request.certify(&cluster.authority, &agent("pi-1"), &enrolment, NOW).unwrap();
    };
    let (joined, ()) = tokio::join!(join(&token, "pi-1", &key), lying);
    let error = joined.unwrap_err();
    assert!(matches!(&error, EnrolError::Certificate(CertificateError::Key)), "{error}");
}

#[tokio::test]
async fn nobody_to_join_is_an_error_in_time() {
    let cluster = Cluster::start();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = socket.local_addr().unwrap().to_string();
    let config = LinkConfig { handshake_timeout: std::time::Duration::from_millis(300), ..LinkConfig::default() };
    let token = JoinToken { addresses: vec![silent], ..cluster.token(1) };
    let error = soon(enrol(&token, &agent("x").name, &DeviceKey::generate().unwrap(), &config)).await.unwrap_err();
    assert!(matches!(&error, EnrolError::Connect(ConnectError::TimedOut { .. })), "{error}");
    let token = JoinToken { addresses: vec!["no port here".into()], ..token };
    let error = soon(enrol(&token, &agent("x").name, &DeviceKey::generate().unwrap(), &config)).await.unwrap_err();
    assert!(matches!(&error, EnrolError::Connect(ConnectError::Resolve { .. })), "{error}");
}
