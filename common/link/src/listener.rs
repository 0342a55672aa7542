//! The listening side: what comes out of admission, and what its owner makes of it.

use crate::{
    admission::{Admission, Slot},
    authority::ServerIdentity,
    certificate::CertificateError,
    clock::ClusterClock,
    closed::{LinkClosed, close_code, cut_reason},
    config::{ConfigError, LinkConfig},
    handshake::nonce,
    joining::Joining,
    limits::{ACCEPTED_WAITING_MAX, ANSWER_TIMEOUT, SOCKET_BYTES, WAITING_PER_HANDSHAKE},
    link::{Link, Parts},
    reset, tls,
};
use fleetwire_common::{
    envelope::{
        handshake::{Greeted, HandshakeError, HelloInfo, WelcomeInfo},
        keys::{Epoch, RootKeys, Secret},
    },
    fb::ErrorCode,
    ids::Principal,
    time::Time,
};
use quinn::Endpoint;
use std::{net::SocketAddr, sync::Arc};
use tokio::{sync::mpsc, task::JoinHandle};

/// The keys under which principals say `Hello`.
pub trait Keys: Send + Sync + 'static {
    /// The principal's enrolment key; `None` refuses it (revoked, forgotten).
    fn enrolment_key(&self, principal: &Principal) -> Option<Secret>;
}

impl Keys for RootKeys {
    fn enrolment_key(&self, principal: &Principal) -> Option<Secret> {
        Some(RootKeys::enrolment_key(self, principal))
    }
}

/// Accepts devices that join and principals that open sessions. Stops accepting when dropped; links that
/// were opened live on.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
    accepted: mpsc::Receiver<Accepted>,
    acceptor: JoinHandle<()>,
}

/// What was accepted, or not.
#[derive(Debug)]
pub enum Accepted {
    /// A device asks to join.
    Joining(Joining),
    /// A principal has said a genuine `Hello`.
    Session(Pending),
    /// A connection that came to nothing. For the log and the audit; under a flood most are only counted.
    Refused(Refused),
}

/// A connection that came to nothing.
#[derive(Debug)]
pub struct Refused {
    /// Where it came from.
    pub remote: SocketAddr,
    /// Why.
    pub error: AcceptError,
}

/// Why a connection came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// It took too long, in this phase.
    #[error("the {phase} took too long")]
    TimedOut {
        /// What was waited for.
        phase: &'static str,
    },
    /// Its certificate is not of this cluster's authority.
    #[error("a certificate of another cluster, or none that the cluster's authority signed: {reason}")]
    ForeignCertificate {
        /// What TLS says.
        reason: String,
    },
    /// Its certificate has expired.
    #[error("an expired certificate: {reason}")]
    ExpiredCertificate {
        /// What TLS says.
        reason: String,
    },
    /// A session was asked for without a certificate.
    #[error("a session was asked for without a certificate")]
    NoCertificate,
    /// Its certificate names no principal of this cluster.
    #[error("{0}")]
    Certificate(#[from] CertificateError),
    /// A principal that has no keys (any more).
    #[error("principal {principal} has no keys")]
    NoKeys {
        /// Who.
        principal: Principal,
    },
    /// The `Hello` is not genuine.
    #[error("the Hello of {principal}: {error}")]
    Hello {
        /// Whom the certificate names.
        principal: Principal,
        /// What is wrong.
        error: HandshakeError,
    },
    /// Something came that may not come before the `Welcome`.
    #[error("{found} bytes came behind the first frame")]
    TooMuch {
        /// How many.
        found: usize,
    },
    /// It went away, or its bytes are no frames.
    #[error("{0}")]
    Closed(#[from] LinkClosed),
    /// The listener is as full as it may be.
    #[error("{connections} connections are held: no more are taken")]
    Full {
        /// How many.
        connections: usize,
    },
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The settings.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The certificate or key.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The address.
    #[error("listening on {address}: {error}")]
    Address {
        /// The address asked for.
        address: SocketAddr,
        /// What the operating system says.
        error: std::io::Error,
    },
}

impl Listener {
    /// Listens on a UDP address. Call it within a tokio runtime, which then runs everything of this
    /// listener's links.
    pub fn bind(
        address: SocketAddr,
        server: &ServerIdentity,
        keys: Arc<dyn Keys>,
        clock: ClusterClock,
        config: LinkConfig,
    ) -> Result<Listener, BindError> {
        let crypto = tls::server_config(server, &clock)?;
        let mut settings = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        settings
            .transport_config(config.transport(1)?)
            .max_incoming(2 * WAITING_PER_HANDSHAKE * config.handshakes_max)
            .incoming_buffer_size(16 << 10)
            .incoming_buffer_size_total(4 << 20);
        let bound = std::net::UdpSocket::bind(address).and_then(|socket| {
            make_room(&socket);
            Endpoint::new(reset::endpoint_config(server), Some(settings), socket, Arc::new(quinn::TokioRuntime))
        });
        let endpoint = bound.map_err(|error| BindError::Address { address, error })?;
        let (sender, accepted) = mpsc::channel(ACCEPTED_WAITING_MAX);
        let admission = Admission::new(keys, clock, server.cluster.clone(), config, sender);
        let acceptor = tokio::spawn(Arc::new(admission).drive(endpoint.clone()));
        Ok(Listener { endpoint, accepted, acceptor })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// The next connection. `None` only after [`Listener::close`].
    pub async fn accept(&mut self) -> Option<Accepted> {
        self.accepted.recv().await
    }

    /// Connections that are held, in whatever state.
    pub fn connections(&self) -> usize {
        self.endpoint.open_connections()
    }

    /// Stops accepting and closes every connection with that reason; waits, bounded, until peers were told.
    pub async fn close(&mut self, code: ErrorCode, reason: &str) {
        self.acceptor.abort();
        self.accepted.close();
        self.endpoint.close(close_code(code), cut_reason(reason).as_bytes());
        let _ = tokio::time::timeout(std::time::Duration::from_millis(100), self.endpoint.wait_idle()).await;
    }
}

/// Asks for room for what arrives while we compute: a fleet that comes back says hello at once, and whoever is not heard says
/// it again after one second, after three, and after seven. The system gives what it allows.
fn make_room(socket: &std::net::UdpSocket) {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::net::sockopt::set_socket_recv_buffer_size(socket, SOCKET_BYTES) {
        tracing::debug!(%error, "the socket's buffer stays as it is");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

impl AcceptError {
    /// The code that the peer is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            AcceptError::TimedOut { .. } => ErrorCode::MessageTimeout,
            AcceptError::ForeignCertificate { .. }
            | AcceptError::ExpiredCertificate { .. }
            | AcceptError::NoCertificate
            | AcceptError::Certificate(_)
            | AcceptError::NoKeys { .. } => ErrorCode::Authorization,
            AcceptError::Hello { error: HandshakeError::Open(error), .. } => error.code(),
            AcceptError::Hello { .. } | AcceptError::TooMuch { .. } => ErrorCode::WrongState,
            AcceptError::Closed(closed) => closed.code(),
            AcceptError::Full { .. } => ErrorCode::Busy,
        }
    }

    /// What a peer that is not trusted yet is told: the kind of error, no more.
    pub(crate) fn told(&self) -> String {
        let text = self.to_string();
        cut_reason(&text).to_owned()
    }
}

/// A principal that has said a genuine `Hello` and waits for its `Welcome`. Dropped, it is closed.
#[derive(Debug)]
pub struct Pending {
    /// Whom its certificate names.
    pub principal: Principal,
    pub(crate) greeted: Greeted,
    pub(crate) parts: Parts,
    pub(crate) config: Arc<LinkConfig>,
    /// Counts as a handshake until it is welcomed or refused.
    pub(crate) slot: Slot,
}

impl Pending {
    /// What it said of itself.
    pub fn hello(&self) -> &HelloInfo {
        &self.greeted.hello
    }

    /// Where it came from.
    pub fn remote_address(&self) -> SocketAddr {
        self.parts.connection.remote_address()
    }

    /// Welcomes it: agrees on the session's keys and starts the link. Does not wait.
    pub fn welcome(self, epoch: &Epoch, info: &WelcomeInfo) -> Result<Link, LinkClosed> {
        let Ok(nonce) = nonce() else {
            let reason = "the scheduler has no randomness";
            self.parts.connection.close(close_code(ErrorCode::Internal), reason.as_bytes());
            return Err(LinkClosed::ByUs { code: ErrorCode::Internal, reason: reason.to_owned() });
        };
        let mut welcome = Vec::with_capacity(512);
        let session = self.greeted.welcome(&self.principal, epoch, nonce, info, &mut welcome);
        Ok(self.parts.start(session, welcome, &self.config))
    }

    /// Refuses it with an authentic answer, then closes. Does not wait.
    pub fn refuse(self, now: Time, code: ErrorCode, message: &str) {
        let Pending { greeted, parts, slot, .. } = self;
        let mut answer = Vec::new();
        greeted.refuse(now, code, message, &mut answer);
        parts.answer(answer, code, message, slot);
    }
}

impl Parts {
    /// Sends one last frame, gives the peer time to take it, and closes.
    pub(crate) fn answer(mut self, frame: Vec<u8>, code: ErrorCode, reason: &str, slot: Slot) {
        let reason = cut_reason(reason).to_owned();
        let runtime = self.runtime.clone();
        runtime.spawn(async move {
            let sent = async {
                self.send.write_all(&frame).await.ok()?;
                self.send.finish().ok()?;
                // The peer closes when it has read the answer.
                Some(self.connection.closed().await)
            };
            let _ = tokio::time::timeout(ANSWER_TIMEOUT, sent).await;
            self.connection.close(close_code(code), reason.as_bytes());
            drop((slot, self.recv));
        });
    }
}

/// Streams are shown by nothing but their connection.
impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("remote", &self.connection.remote_address()).finish_non_exhaustive()
    }
}
