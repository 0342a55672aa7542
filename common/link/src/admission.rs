//! Admission: every handshake from its first packet to its first frame, within bounds.
//!
//! Nothing a stranger sends costs more than a bounded number of handshakes for a bounded time: beyond half
//! of the bound, addresses must prove themselves (Retry) and none may have more than its share; beyond all of
//! it, nothing new is accepted until one ends. Before the `Welcome` only the control stream is read, and of
//! that one small frame.

use crate::{
    JOIN_ALPN,
    certificate::principal_of,
    clock::ClusterClock,
    closed::{LinkClosed, close_code},
    config::LinkConfig,
    frames::FrameReader,
    handshake::{FirstFrameError, first_frame},
    joining::Joining,
    limits::{
        ENROLMENT_FRAME_BYTES_MAX, GREETING_FRAME_BYTES_MAX, REFUSALS_LOGGED_PER_SECOND, WAIT_MAX,
        WAITING_PER_HANDSHAKE,
    },
    link::Parts,
    listener::{AcceptError, Accepted, Keys, Pending, Refused},
    waiting::Waiting,
};
use bytes::Bytes;
use fleetwire_common::{envelope::handshake::Greeted, ids::Principal, time::Time};
use quinn::{Connection, Endpoint, Incoming, crypto::rustls::HandshakeData};
use rustls::pki_types::CertificateDer;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    runtime::Handle,
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, timeout_at},
};

/// What every handshake needs.
pub(crate) struct Admission {
    keys: Arc<dyn Keys>,
    clock: ClusterClock,
    cluster: String,
    config: Arc<LinkConfig>,
    runtime: Handle,
    accepted: mpsc::Sender<Accepted>,
    handshakes: Arc<Semaphore>,
    shares: Arc<Shares>,
}

/// One of the bounded handshakes; ends with the session's `Welcome`, the answer to a device that joins, or
/// the connection's end.
#[derive(Debug)]
pub(crate) struct Slot {
    _permit: OwnedSemaphorePermit,
    shares: Arc<Shares>,
    network: IpAddr,
}

/// How many handshakes each network has. Holds only those that have one.
#[derive(Debug, Default)]
struct Shares {
    counts: Mutex<BTreeMap<IpAddr, usize>>,
    /// Told whenever a handshake ends.
    freed: Notify,
}

impl Admission {
    pub(crate) fn new(
        keys: Arc<dyn Keys>,
        clock: ClusterClock,
        cluster: String,
        config: LinkConfig,
        accepted: mpsc::Sender<Accepted>,
    ) -> Admission {
        Admission {
            keys,
            clock,
            cluster,
            handshakes: Arc::new(Semaphore::new(config.handshakes_max)),
            config: Arc::new(config),
            runtime: Handle::current(),
            accepted,
            shares: Arc::default(),
        }
    }

    /// Takes connections until the endpoint is closed.
    pub(crate) async fn drive(self: Arc<Self>, endpoint: Endpoint) {
        let mut log = LogGate::default();
        let mut waiting = Waiting::new(WAITING_PER_HANDSHAKE * self.config.handshakes_max, WAIT_MAX);
        let (refusals, mut refused) = mpsc::channel::<Refused>(16);
        loop {
            let next = tokio::select! {
                next = self.next(&endpoint, &mut waiting) => next,
                Some(refused) = refused.recv() => {
                    self.on_refused(refused, &mut log);
                    continue;
                }
            };
            let Some((permit, incoming)) = next else { return };
            let Some((incoming, slot)) = self.judge(&endpoint, incoming, permit, &mut waiting, &mut log) else {
                continue;
            };
            let (this, refusals) = (Arc::clone(&self), refusals.clone());
            tokio::spawn(async move {
                let remote = incoming.remote_address();
                match this.admit(incoming, slot).await {
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

    /// The next connection and room for its handshake: one that had to wait and whose turn it is, else a new
    /// one. Loses nothing when dropped.
    async fn next(
        &self,
        endpoint: &Endpoint,
        waiting: &mut Waiting<Incoming>,
    ) -> Option<(OwnedSemaphorePermit, Incoming)> {
        loop {
            // Only a closed semaphore gives no permit, and ours is never closed.
            let permit = Arc::clone(&self.handshakes).acquire_owned().await.ok()?;
            let freed = self.shares.freed.notified();
            let has_room = |network| self.shares.of(network) < self.share_max();
            if let Some(incoming) = waiting.next(Instant::now(), has_room, Incoming::ignore) {
                return Some((permit, incoming));
            }
            tokio::select! {
                incoming = endpoint.accept() => return Some((permit, incoming?)),
                () = freed => {}
            }
        }
    }

    /// Whether a connection gets a handshake, before anything is computed for it.
    fn judge(
        &self,
        endpoint: &Endpoint,
        incoming: Incoming,
        permit: OwnedSemaphorePermit,
        waiting: &mut Waiting<Incoming>,
        log: &mut LogGate,
    ) -> Option<(Incoming, Slot)> {
        let connections = endpoint.open_connections();
        if connections >= self.config.connections_max {
            let remote = incoming.remote_address();
            incoming.refuse();
            self.on_refused(Refused { remote, error: AcceptError::Full { connections } }, log);
            return None;
        }
        let network = network(incoming.remote_address().ip());
        let crowded = self.handshakes.available_permits() < self.config.handshakes_max / 2;
        if crowded && incoming.may_retry() && !incoming.remote_address_validated() {
            // The address must show that it receives what it is sent.
            let _ = incoming.retry();
            return None;
        }
        if crowded && self.shares.of(network) >= self.share_max() {
            if let Err(incoming) = waiting.push(network, Instant::now(), incoming) {
                // It asks again by itself, in a second.
                incoming.ignore();
            }
            return None;
        }
        Some((incoming, Slot::new(permit, &self.shares, network)))
    }

    /// Handshakes that one network may have in a crowd.
    fn share_max(&self) -> usize {
        (self.config.handshakes_max / 4).max(2)
    }

    fn on_refused(&self, refused: Refused, log: &mut LogGate) {
        if let Some(passed_over) = log.pass(ClusterClock::local()) {
            let Refused { remote, error } = &refused;
            tracing::warn!(%remote, %error, passed_over, "a connection was refused");
        }
        // Whoever reads too slowly misses some: the link does not wait for an audience.
        let _ = self.accepted.try_send(Accepted::Refused(refused));
    }

    /// One connection from its first packet to its first frame, all within the handshake timeout.
    async fn admit(&self, incoming: Incoming, slot: Slot) -> Result<Accepted, AcceptError> {
        let deadline = Instant::now() + self.config.handshake_timeout;
        let connecting = incoming.accept().map_err(LinkClosed::from_transport)?;
        let connection = match timeout_at(deadline, connecting).await {
            Ok(connection) => connection.map_err(tls_error)?,
            Err(_) => return Err(AcceptError::TimedOut { phase: "TLS handshake" }),
        };
        let greeting = timeout_at(deadline, self.greet(&connection, slot));
        let result = greeting.await.unwrap_or(Err(AcceptError::TimedOut { phase: "first frame" }));
        result.inspect_err(|error| connection.close(close_code(error.code()), error.told().as_bytes()))
    }

    async fn greet(&self, connection: &Connection, slot: Slot) -> Result<Accepted, AcceptError> {
        let protocol = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
        let protocol = protocol.and_then(|data| data.protocol);
        let joins = protocol.as_deref() == Some(JOIN_ALPN);
        // Whatever is not joining is a session. Who has no certificate learns so before anything is read.
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
            None => Ok(Accepted::Joining(Joining::new(parts, frame.bytes, slot))),
            Some(principal) => self.hello(parts, principal, &frame.bytes, slot).map(Accepted::Session),
        }
    }

    fn hello(&self, parts: Parts, principal: Principal, frame: &Bytes, slot: Slot) -> Result<Pending, AcceptError> {
        let key = self.keys.enrolment_key(&principal);
        let key = key.ok_or_else(|| AcceptError::NoKeys { principal: principal.clone() })?;
        let greeted = Greeted::on_hello(&key, frame)
            .map_err(|error| AcceptError::Hello { principal: principal.clone(), error })?;
        Ok(Pending { principal, greeted, parts, config: Arc::clone(&self.config), slot })
    }

    /// Whom the verified certificate names.
    fn principal(&self, connection: &Connection) -> Result<Principal, AcceptError> {
        let chain = connection.peer_identity().and_then(|chain| chain.downcast::<Vec<CertificateDer<'_>>>().ok());
        let leaf = chain.as_ref().and_then(|chain| chain.first()).ok_or(AcceptError::NoCertificate)?;
        Ok(principal_of(leaf, &self.cluster)?)
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

impl Slot {
    fn new(permit: OwnedSemaphorePermit, shares: &Arc<Shares>, network: IpAddr) -> Slot {
        *shares.lock().entry(network).or_default() += 1;
        Slot { _permit: permit, shares: Arc::clone(shares), network }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut shares = self.shares.lock();
        if let Some(count) = shares.get_mut(&self.network) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                shares.remove(&self.network);
            }
        }
        drop(shares);
        self.shares.freed.notify_one();
    }
}

impl Shares {
    fn of(&self, network: IpAddr) -> usize {
        self.lock().get(&network).copied().unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        // A panic elsewhere leaves the counts complete.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one owner surely has for itself: an IPv4 address, or the 2^64 addresses of an IPv6 network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 => v4,
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
