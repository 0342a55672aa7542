//! The network: the listener, and a small task for each session that hands its frames over to the driver's
//! task, on the same thread: to wake another thread costs more than to open a frame.
//!
//! Invariants: of a session the driver sees `Connected`, then its frames in order, then `Disconnected`;
//! while the driver is behind, nothing more is read.

use crate::{driver::Input, error::StartError, limits::CLOSE_WITHIN, refusals::Refusals};
use fleetwire_common::{
    envelope::{
        Features,
        handshake::{Proof, WelcomeInfo},
        keys::{Epoch, RootKeys},
    },
    fb,
    ids::{Position, SessionId},
};
use fleetwire_link::{Accepted, ClusterClock, LinkConfig, Listener, Pending, Receiver, ServerIdentity};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

/// The network, before and while it serves.
pub(crate) struct Network {
    /// What was bound.
    pub address: SocketAddr,
    /// Until it serves.
    listener: Option<Listener>,
    serving: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// What sessions are welcomed with.
pub(crate) struct Serving {
    pub cluster: String,
    pub keys: RootKeys,
    pub epoch: Epoch,
    pub incarnation: u64,
    pub incarnation_id: [u8; 16],
    /// The position that is durable by now.
    pub durable: Arc<AtomicU64>,
    pub clock: ClusterClock,
    pub inputs: mpsc::Sender<Input>,
    pub refusals: Arc<Refusals>,
}

impl Network {
    /// Binds the address. Sessions and joining are served only after [`Network::serve`].
    pub fn bind(
        address: SocketAddr,
        server: &ServerIdentity,
        keys: RootKeys,
        clock: ClusterClock,
    ) -> Result<Network, StartError> {
        let listener = Listener::bind(address, server, Arc::new(keys), clock, LinkConfig::default());
        let listener = listener.map_err(StartError::Bind)?;
        let local = listener.local_addr().map_err(|error| StartError::Runtime { what: "network", error })?;
        Ok(Network { address: local, listener: Some(listener), serving: None })
    }

    /// Begins to welcome sessions.
    pub fn serve(&mut self, serving: Serving) {
        if let Some(listener) = self.listener.take() {
            let (stop, stopped) = oneshot::channel();
            self.serving = Some((stop, tokio::spawn(drive(listener, serving, stopped))));
        }
    }

    /// Closes what is open, and waits, bounded, until peers were told.
    pub async fn stop(&mut self) {
        if let Some((stop, ended)) = self.serving.take() {
            drop(stop);
            let _ = ended.await;
        }
    }
}

async fn drive(mut listener: Listener, serving: Serving, mut stopped: oneshot::Receiver<()>) {
    let serving = Arc::new(serving);
    let mut sessions = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => break,
        };
        sessions += 1;
        let session = SessionId(sessions);
        match accepted {
            None => break,
            // The link has logged it, within bounds.
            Some(Accepted::Refused(refused)) => serving.refusals.count_accept(&refused.error),
            Some(Accepted::Joining(joining)) => {
                if serving.inputs.send(Input::Joining { session, joining: Box::new(joining) }).await.is_err() {
                    break;
                }
            }
            Some(Accepted::Session(pending)) => welcome(session, pending, &serving).await,
        }
    }
    // The driver has closed the sessions; their last frames are on their way.
    let deadline = tokio::time::Instant::now() + CLOSE_WITHIN;
    while listener.connections() > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    listener.close(fb::ErrorCode::ShuttingDown, "the scheduler stops").await;
}

async fn welcome(session: SessionId, pending: Pending, serving: &Arc<Serving>) {
    let (principal, hello) = (pending.principal.clone(), pending.hello().clone());
    let durable = Position(serving.durable.load(Ordering::Acquire));
    let mac = serving.keys.receipt_mac(serving.incarnation, &serving.incarnation_id, durable);
    let info = WelcomeInfo {
        features: Features::ALL,
        cluster_time: serving.clock.now(),
        incarnation: serving.incarnation,
        receipt: Some(Proof {
            receipt: fb::Receipt::new(serving.incarnation, durable.0, &mac),
            incarnation_id: serving.incarnation_id,
        }),
        cluster: serving.cluster.clone(),
        software: crate::SOFTWARE.to_owned(),
    };
    let link = match pending.welcome(&serving.epoch, &info) {
        Ok(link) => link,
        Err(error) => {
            tracing::warn!(%principal, "no session: {error}");
            return;
        }
    };
    let input = Input::Connected { session, principal, hello, sender: link.sender, opener: Box::new(link.opener) };
    if serving.inputs.send(input).await.is_ok() {
        tokio::spawn(hand_over(session, Box::new(link.receiver), serving.inputs.clone()));
    }
}

/// Hands a session's frames over until it ends.
// What a task is given by value it has room for twice.
async fn hand_over(session: SessionId, mut receiver: Box<Receiver>, inputs: mpsc::Sender<Input>) {
    loop {
        // Grows with what comes: most of the time that is one frame, and room for many costs more than reading it.
        let mut frames = Vec::new();
        let input = match receiver.recv_many(&mut frames).await {
            Ok(_) => Input::Frames { session, frames: frames.into() },
            Err(why) => Input::Disconnected { session, why },
        };
        let ended = matches!(input, Input::Disconnected { .. });
        if inputs.send(input).await.is_err() || ended {
            return;
        }
    }
}
