//! The listening side: handshakes in parallel, within bounds, each to its end or its timeout.
//!
//! Nothing a stranger sends costs more than a bounded number of handshakes: beyond half of the bound,
//! addresses must prove themselves (Retry); beyond all of it, nothing new is accepted until one ends. Before
//! the `Welcome` only the control stream is read, and of that one small frame.

use crate::{
    JOIN_ALPN, SESSION_ALPN,
    authority::ServerIdentity,
    certificate::{CertificateError, principal_of},
    clock::ClusterClock,
    closed::{LinkClosed, close_code, cut_reason},
    config::{ConfigError, LinkConfig},
    frames::FrameReader,
    handshake::{FirstFrameError, first_frame, nonce},
    joining::Joining,
    limits::{
        ACCEPTED_WAITING_MAX, ANSWER_TIMEOUT, ENROLMENT_FRAME_BYTES_MAX, GREETING_FRAME_BYTES_MAX,
        REFUSALS_LOGGED_PER_SECOND,
    },
    link::{Link, Parts},
    tls,
};
use bytes::Bytes;
use fleetwire_common::{
    envelope::{
        handshake::{Greeted, HandshakeError, HelloInfo, WelcomeInfo},
        keys::{Epoch, RootKeys, Secret},
    },
    fb::ErrorCode,
    ids::Principal,
    time::Time,
};
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream, crypto::rustls::HandshakeData};
use rustls::pki_types::CertificateDer;
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinHandle,
};

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
            .max_incoming(4 * config.handshakes_max)
            .incoming_buffer_size(16 << 10)
            .incoming_buffer_size_total(4 << 20);
        let endpoint = Endpoint::server(settings, address).map_err(|error| BindError::Address { address, error })?;
        let (sender, accepted) = mpsc::channel(ACCEPTED_WAITING_MAX);
        let admission = Arc::new(Admission {
            keys,
            clock,
            cluster: server.cluster.clone(),
            handshakes: Arc::new(Semaphore::new(config.handshakes_max)),
            config: Arc::new(config),
            runtime: Handle::current(),
            accepted: sender,
        });
        let acceptor = tokio::spawn(admission.drive(endpoint.clone()));
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

impl Drop for Listener {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

/// What every handshake needs.
struct Admission {
    keys: Arc<dyn Keys>,
    clock: ClusterClock,
    cluster: String,
    handshakes: Arc<Semaphore>,
    config: Arc<LinkConfig>,
    runtime: Handle,
    accepted: mpsc::Sender<Accepted>,
}

impl Admission {
    async fn drive(self: Arc<Self>, endpoint: Endpoint) {
        let mut log = LogGate::default();
        let (refusals, mut refused) = mpsc::channel::<Refused>(16);
        loop {
            let permit = tokio::select! {
                permit = Arc::clone(&self.handshakes).acquire_owned() => permit,
                Some(refused) = refused.recv() => {
                    self.on_refused(refused, &mut log);
                    continue;
                }
            };
            // Only a closed semaphore gives no permit, and ours is never closed.
            let Ok(permit) = permit else { return };
            let incoming = tokio::select! {
                incoming = endpoint.accept() => incoming,
                Some(refused) = refused.recv() => {
                    self.on_refused(refused, &mut log);
                    continue;
                }
            };
            let Some(incoming) = incoming else { return };
            let crowded = self.handshakes.available_permits() < self.config.handshakes_max / 2;
            if crowded && incoming.may_retry() && !incoming.remote_address_validated() {
                // The address must show that it receives what it is sent.
                let _ = incoming.retry();
                continue;
            }
            let connections = endpoint.open_connections();
            if connections >= self.config.connections_max {
                let remote = incoming.remote_address();
                incoming.refuse();
                self.on_refused(Refused { remote, error: AcceptError::Full { connections } }, &mut log);
                continue;
            }
            let (this, refusals) = (Arc::clone(&self), refusals.clone());
            tokio::spawn(async move {
                let remote = incoming.remote_address();
                match this.admit(incoming, permit).await {
                    Ok(accepted) => {
                        let _ = this.accepted.send(accepted).await;
                    }
                    Err(error) => {
                        let _ = refusals.try_send(Refused { remote, error });
                    }
                }
            });
        }
    }

    fn on_refused(&self, refused: Refused, log: &mut LogGate) {
        if let Some(passed_over) = log.pass(ClusterClock::local()) {
            let Refused { remote, error } = &refused;
            tracing::warn!(%remote, %error, passed_over, "a connection was refused");
        }
        // Whoever reads too slowly misses some: the link does not wait for an audience.
        let _ = self.accepted.try_send(Accepted::Refused(refused));
    }

    /// One connection from its first packet to its first frame.
    async fn admit(&self, incoming: Incoming, permit: OwnedSemaphorePermit) -> Result<Accepted, AcceptError> {
        let limit = self.config.handshake_timeout;
        let connecting = incoming.accept().map_err(LinkClosed::from_transport)?;
        let connection = match tokio::time::timeout(limit, connecting).await {
            Ok(connection) => connection.map_err(tls_error)?,
            Err(_) => return Err(AcceptError::TimedOut { phase: "TLS handshake" }),
        };
        let greeting = tokio::time::timeout(limit, self.greet(&connection, permit));
        let result = greeting.await.unwrap_or(Err(AcceptError::TimedOut { phase: "first frame" }));
        result.inspect_err(|error| connection.close(close_code(error.code()), error.told().as_bytes()))
    }

    async fn greet(&self, connection: &Connection, permit: OwnedSemaphorePermit) -> Result<Accepted, AcceptError> {
        let protocol = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
        let protocol = protocol.and_then(|data| data.protocol);
        let joins = protocol.as_deref() == Some(JOIN_ALPN);
        debug_assert!(joins || protocol.as_deref() == Some(SESSION_ALPN), "TLS agrees on one of ours");
        // Who has no certificate learns so at once, before anything of it is read.
        let principal = if joins { None } else { Some(self.principal(connection)?) };
        let max = if joins { ENROLMENT_FRAME_BYTES_MAX } else { GREETING_FRAME_BYTES_MAX };
        let (send, mut recv) = connection.accept_bi().await.map_err(tls_error)?;
        let mut reader = FrameReader::new(0, max);
        let frame =
            first_frame(connection, &mut recv, &mut reader, &self.clock).await.map_err(|error| match error {
                FirstFrameError::Closed(closed) => AcceptError::Closed(closed),
                FirstFrameError::Frame(error) => AcceptError::Closed(error.into()),
                FirstFrameError::Ended => AcceptError::TimedOut { phase: "first frame" },
            })?;
        if reader.pending() > 0 {
            return Err(AcceptError::TooMuch { found: reader.pending() });
        }
        let parts = Parts {
            connection: connection.clone(),
            endpoint: None,
            send,
            recv,
            reader,
            clock: self.clock.clone(),
            runtime: self.runtime.clone(),
        };
        match principal {
            None => Ok(Accepted::Joining(Joining::new(parts, frame.bytes, permit))),
            Some(principal) => self.hello(parts, principal, &frame.bytes, permit).map(Accepted::Session),
        }
    }

    fn hello(
        &self,
        parts: Parts,
        principal: Principal,
        frame: &Bytes,
        permit: OwnedSemaphorePermit,
    ) -> Result<Pending, AcceptError> {
        let key = self.keys.enrolment_key(&principal);
        let key = key.ok_or_else(|| AcceptError::NoKeys { principal: principal.clone() })?;
        let greeted = Greeted::on_hello(&key, frame)
            .map_err(|error| AcceptError::Hello { principal: principal.clone(), error })?;
        Ok(Pending { principal, greeted, parts, config: Arc::clone(&self.config), permit })
    }

    /// Whom the verified certificate names.
    fn principal(&self, connection: &Connection) -> Result<Principal, AcceptError> {
        let chain = connection.peer_identity().and_then(|chain| chain.downcast::<Vec<CertificateDer<'_>>>().ok());
        let leaf = chain.as_ref().and_then(|chain| chain.first()).ok_or(AcceptError::NoCertificate)?;
        Ok(principal_of(leaf, &self.cluster)?)
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
    fn told(&self) -> String {
        let text = self.to_string();
        cut_reason(&text).to_owned()
    }
}

/// Certificate alerts (RFC 8446 section 6.2) by their meaning.
fn tls_error(error: quinn::ConnectionError) -> AcceptError {
    const BAD_CERTIFICATE: u8 = 42;
    const CERTIFICATE_EXPIRED: u8 = 45;
    const UNKNOWN_CA: u8 = 48;
    match LinkClosed::from_transport(error) {
        LinkClosed::Tls { alert: UNKNOWN_CA | BAD_CERTIFICATE, reason } => AcceptError::ForeignCertificate { reason },
        LinkClosed::Tls { alert: CERTIFICATE_EXPIRED, reason } => AcceptError::ExpiredCertificate { reason },
        closed => AcceptError::Closed(closed),
    }
}

/// A principal that has said a genuine `Hello` and waits for its `Welcome`. Dropped, it is closed.
#[derive(Debug)]
pub struct Pending {
    /// Whom its certificate names.
    pub principal: Principal,
    greeted: Greeted,
    parts: Parts,
    config: Arc<LinkConfig>,
    /// Counts as a handshake until it is welcomed or refused.
    permit: OwnedSemaphorePermit,
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
        let Pending { greeted, parts, permit, .. } = self;
        let mut answer = Vec::new();
        greeted.refuse(now, code, message, &mut answer);
        parts.answer(answer, code, message, permit);
    }
}

impl Parts {
    /// Sends one last frame, gives the peer time to take it, and closes.
    pub(crate) fn answer(mut self, frame: Vec<u8>, code: ErrorCode, reason: &str, permit: OwnedSemaphorePermit) {
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
            drop((permit, self.recv));
        });
    }
}

/// Lets a few refusals a second into the log and counts the rest: a flood must not fill the disk.
#[derive(Default)]
struct LogGate {
    second: u64,
    logged: u32,
    passed_over: u64,
}

impl LogGate {
    /// Whether to log now, and how many were passed over since the last one that was.
    fn pass(&mut self, now: Time) -> Option<u64> {
        let second = now.0 / 1_000_000;
        if second != self.second {
            self.second = second;
            self.logged = 0;
        }
        if self.logged >= REFUSALS_LOGGED_PER_SECOND {
            self.passed_over += 1;
            return None;
        }
        self.logged += 1;
        Some(std::mem::take(&mut self.passed_over))
    }
}

/// Streams are shown by nothing but their connection.
impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("remote", &self.connection.remote_address()).finish_non_exhaustive()
    }
}

const _: fn() = || {
    fn sendable<T: Send>() {}
    sendable::<(Accepted, Link, SendStream, RecvStream)>();
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_counted_and_not_logged() {
        let mut gate = LogGate::default();
        let at = |s: u64| Time(s * 1_000_000);
        let logged = (0..1_000).filter(|_| gate.pass(at(1)).is_some()).count();
        assert_eq!(logged, REFUSALS_LOGGED_PER_SECOND as usize);
        assert_eq!(gate.pass(at(2)), Some(1_000 - u64::from(REFUSALS_LOGGED_PER_SECOND)));
    }
}
