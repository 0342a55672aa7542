//! The connecting side: addresses in order, one handshake, one session.

use crate::{
    clock::ClusterClock,
    closed::{LinkClosed, close_code},
    config::{ConfigError, LinkConfig},
    frames::{FrameError, FrameReader},
    handshake::{FirstFrameError, first_frame, nonce},
    identity::Identity,
    limits::{BETWEEN_PLACES, GREETING_FRAME_BYTES_MAX, PLACES_MAX, RESOLVE_TIMEOUT},
    link::{Link, Parts},
    tls::{self, Expected, Finding, TrustError},
};
use fleetwire_common::{
    envelope::handshake::{Greeting, HandshakeError, HelloInfo, WelcomeInfo, clock_offset_us},
    fb::ErrorCode,
};
use quinn::{Connection, Endpoint};
use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{runtime::Handle, task::JoinSet, time::timeout};

/// An opened session.
#[derive(Debug)]
pub struct Connected {
    /// The link.
    pub link: Link,
    /// What the scheduler said.
    pub welcome: WelcomeInfo,
    /// What was added to the local clock to make it cluster time (µs); the given clock was set to it.
    pub offset_us: i64,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The settings.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// No address to try.
    #[error("there is no address of the scheduler to connect to")]
    NoAddress,
    /// An address that is no address, or a name that nobody knows.
    #[error("{address} cannot be resolved: {error}")]
    Resolve {
        /// As it was given.
        address: String,
        /// What the resolver says.
        error: std::io::Error,
    },
    /// No socket.
    #[error("opening a UDP socket: {0}")]
    Socket(#[source] std::io::Error),
    /// The identity's certificate or key cannot be used.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// Nobody answers, or it takes too long.
    #[error("{address} does not answer")]
    TimedOut {
        /// Where.
        address: String,
    },
    /// Whoever answers is not our scheduler.
    #[error("{address}: {error}")]
    Untrusted {
        /// Where.
        address: String,
        /// Why.
        error: TrustError,
    },
    /// Our scheduler, or whoever answers, closed the connection.
    #[error("{address}: {closed}")]
    Closed {
        /// Where.
        address: String,
        /// With what reason.
        closed: LinkClosed,
    },
    /// The session's own handshake failed, or the scheduler refused us with an authentic answer.
    #[error("{address}: {error}")]
    Handshake {
        /// Where.
        address: String,
        /// Why.
        error: HandshakeError,
    },
    /// The operating system has no randomness.
    #[error("no randomness: {0}")]
    Random(#[from] getrandom::Error),
}

impl ConnectError {
    /// The code for programs.
    pub fn code(&self) -> ErrorCode {
        match self {
            ConnectError::Closed { closed, .. } => closed.code(),
            ConnectError::Handshake { error: HandshakeError::Refused { code, .. }, .. } => *code,
            ConnectError::Handshake { error: HandshakeError::Open(error), .. } => error.code(),
            ConnectError::Handshake { .. } => ErrorCode::WrongState,
            ConnectError::Untrusted { .. } => ErrorCode::Authorization,
            ConnectError::TimedOut { .. } => ErrorCode::MessageTimeout,
            ConnectError::Config(_)
            | ConnectError::NoAddress
            | ConnectError::Resolve { .. }
            | ConnectError::Socket(_)
            | ConnectError::Tls(_)
            | ConnectError::Random(_) => ErrorCode::None,
        }
    }

    /// Whether trying again may help although nobody changes anything: the network, a busy or restarting
    /// scheduler. What is not so (a revoked principal, another cluster) is still worth a try now and then.
    pub fn is_passing(&self) -> bool {
        match self {
            ConnectError::TimedOut { .. } | ConnectError::Resolve { .. } | ConnectError::Socket(_) => true,
            ConnectError::Closed { closed: LinkClosed::Tls { .. }, .. } => false,
            ConnectError::Closed { closed, .. } => !matches!(closed.code(), ErrorCode::Authorization),
            ConnectError::Handshake { error: HandshakeError::Refused { code, .. }, .. } => {
                matches!(
                    *code,
                    ErrorCode::Busy | ErrorCode::RateLimited | ErrorCode::ShuttingDown | ErrorCode::AlreadyConnected
                )
            }
            _ => false,
        }
    }
}

/// Opens a session with the first address that gives one. `clock` is set to cluster time. Within the
/// handshake timeout for each address.
pub async fn connect(
    addresses: &[String],
    identity: &Identity,
    hello: &HelloInfo,
    clock: &ClusterClock,
    config: &LinkConfig,
) -> Result<Connected, ConnectError> {
    let expected = Expected {
        cluster: &identity.cluster,
        authority_sha256: identity.authority_sha256(),
        known_time: identity.known_time,
        identity: Some(identity),
    };
    let mut last = ConnectError::NoAddress;
    for address in addresses {
        let opened = async {
            let dialed = dial(address, &expected, config).await?;
            greet(address, dialed, identity, hello, clock, config).await
        };
        let opened = timeout(config.handshake_timeout, opened).await;
        match opened.unwrap_or_else(|_| Err(ConnectError::TimedOut { address: address.clone() })) {
            Ok(connected) => return Ok(connected),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A connection that TLS trusts.
pub(crate) struct Dialed {
    pub(crate) endpoint: Endpoint,
    pub(crate) connection: Connection,
}

/// Connects to one address. Of several that its name has, all are tried, each a little after the one
/// before, and the first that answers is taken (RFC 8305): a name with an IPv6 address that leads nowhere
/// costs a quarter of a second.
pub(crate) async fn dial(address: &str, expected: &Expected<'_>, config: &LinkConfig) -> Result<Dialed, ConnectError> {
    let transport = config.transport(0)?;
    let resolve = |error| ConnectError::Resolve { address: address.to_owned(), error };
    let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, "the resolver does not answer");
    let found = timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host(address)).await;
    let mut places = found.unwrap_or_else(|_| Err(late())).map_err(resolve)?.take(PLACES_MAX);
    let mut last = resolve(std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address"));
    let mut attempts = JoinSet::new();
    let mut next = places.next();
    loop {
        if let Some(place) = next.take() {
            let (crypto, name, finding) = tls::client_config(expected)?;
            let mut settings = quinn::ClientConfig::new(Arc::new(crypto));
            settings.transport_config(Arc::clone(&transport));
            let attempt = Attempt { address: address.to_owned(), place, settings, name, finding };
            // They run beside each other. What one found out is told although another did not answer.
            attempts.spawn(attempt.run(config.handshake_timeout / 10 * 9));
        }
        let ended = match timeout(BETWEEN_PLACES, attempts.join_next()).await {
            Ok(ended) => ended,
            Err(_) => {
                next = places.next();
                continue;
            }
        };
        match ended {
            Some(Ok(Ok(dialed))) => return Ok(dialed),
            Some(Ok(Err(error))) => {
                // What was found out says more than that somebody did not answer.
                if !matches!(error, ConnectError::TimedOut { .. }) || matches!(last, ConnectError::Resolve { .. }) {
                    last = error;
                }
                next = places.next();
            }
            Some(Err(_)) => next = places.next(),
            None => match places.next() {
                None => return Err(last),
                place => next = place,
            },
        }
    }
}

/// One try at one place.
struct Attempt {
    address: String,
    place: SocketAddr,
    settings: quinn::ClientConfig,
    name: String,
    finding: Finding,
}

impl Attempt {
    async fn run(self, limit: Duration) -> Result<Dialed, ConnectError> {
        let Attempt { address, place, settings, name, finding } = self;
        let any: SocketAddr = match place {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let endpoint = Endpoint::client(any).map_err(ConnectError::Socket)?;
        let connecting = endpoint.connect_with(settings, place, &name).map_err(|error| {
            let error = std::io::Error::new(std::io::ErrorKind::InvalidInput, error);
            ConnectError::Resolve { address: address.clone(), error }
        })?;
        match timeout(limit, connecting).await {
            Ok(Ok(connection)) => Ok(Dialed { endpoint, connection }),
            Ok(Err(error)) => Err(match finding.take() {
                Some(error) => ConnectError::Untrusted { address, error },
                None => closed(&address, error),
            }),
            Err(_) => Err(ConnectError::TimedOut { address }),
        }
    }
}

// §session-4
async fn greet(
    address: &str,
    dialed: Dialed,
    identity: &Identity,
    hello: &HelloInfo,
    clock: &ClusterClock,
    config: &LinkConfig,
) -> Result<Connected, ConnectError> {
    let Dialed { endpoint, connection } = dialed;
    let gone = |error| closed(address, error);
    let (mut send, mut recv) = connection.open_bi().await.map_err(gone)?;
    let mut frame = Vec::with_capacity(512);
    let sent_us = ClusterClock::local();
    let greeting = Greeting::hello(&identity.enrolment_key, nonce()?, hello, clock.now().as_ms(), &mut frame);
    if send.write_all(&frame).await.is_err() {
        return Err(gone(connection.closed().await));
    }
    let mut reader = FrameReader::new(0, GREETING_FRAME_BYTES_MAX);
    let came = first_frame(&connection, &mut recv, &mut reader, clock).await.map_err(|error| {
        refuse(&connection, &error);
        first_frame_error(address, error)
    })?;
    let came_us = ClusterClock::local();
    let (session, welcome) = greeting.on_welcome(&came.bytes).map_err(|error| {
        connection.close(close_code(ErrorCode::WrongState), b"the Welcome is not acceptable");
        ConnectError::Handshake { address: address.to_owned(), error }
    })?;
    let rtt_us = u64::try_from(connection.rtt().as_micros()).unwrap_or(u64::MAX);
    let offset_us = clock_offset_us(sent_us.0, came_us.0, rtt_us, welcome.cluster_time);
    clock.set_offset_us(offset_us);
    let parts = Parts {
        connection,
        endpoint: Some(endpoint),
        send,
        recv,
        reader,
        clock: clock.clone(),
        runtime: Handle::current(),
    };
    Ok(Connected { link: parts.start(session, Vec::new(), config), welcome, offset_us })
}

/// Tells the peer that its first frame is none.
pub(crate) fn refuse(connection: &Connection, error: &FirstFrameError) {
    if let FirstFrameError::Frame(error) = error {
        connection.close(close_code(error.code()), error.to_string().as_bytes());
    }
}

pub(crate) fn first_frame_error(address: &str, error: FirstFrameError) -> ConnectError {
    let closed = match error {
        FirstFrameError::Closed(closed) => closed,
        FirstFrameError::Frame(error) => LinkClosed::Frame(error),
        FirstFrameError::Ended => LinkClosed::Frame(FrameError::Truncated { found: 0 }),
    };
    ConnectError::Closed { address: address.to_owned(), closed }
}

pub(crate) fn closed(address: &str, error: quinn::ConnectionError) -> ConnectError {
    ConnectError::Closed { address: address.to_owned(), closed: LinkClosed::from_transport(error) }
}
