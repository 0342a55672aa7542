//! The network's thread: the listener, and a small task for each session that hands its frames over.
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
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

/// The running thread.
pub(crate) struct Network {
    /// What was bound.
    pub address: SocketAddr,
    serve: Option<oneshot::Sender<Serving>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
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
    /// Starts the thread and binds the address. Handshakes are served from then on, sessions and joining
    /// only after [`Network::serve`].
    pub async fn bind(
        address: SocketAddr,
        server: ServerIdentity,
        keys: RootKeys,
        clock: ClusterClock,
    ) -> Result<Network, StartError> {
        let fault = |error| StartError::Runtime { what: "network", error };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fault)?;
        let (bound, is_bound) = oneshot::channel();
        let (serve, serving) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let run = async move {
            let listening = Listener::bind(address, &server, Arc::new(keys), clock, LinkConfig::default());
            let listener = match listening {
                Ok(listener) => listener,
                Err(error) => {
                    let _ = bound.send(Err(StartError::Bind(error)));
                    return;
                }
            };
            let local = listener.local_addr().map_err(|error| StartError::Runtime { what: "network", error });
            let failed = local.is_err();
            let _ = bound.send(local);
            // A start that failed elsewhere drops the other ends.
            if let (false, Ok(serving)) = (failed, serving.await) {
                drive(listener, serving, stopped).await;
            }
        };
        let thread =
            thread::Builder::new().name("network".to_owned()).spawn(move || runtime.block_on(run)).map_err(fault)?;
        let gone = || StartError::Runtime { what: "network", error: io::Error::other("its thread ended") };
        let address = is_bound.await.map_err(|_| gone())??;
        Ok(Network { address, serve: Some(serve), stop: Some(stop), thread: Some(thread) })
    }

    /// Begins to welcome sessions.
    pub fn serve(&mut self, serving: Serving) {
        if let Some(serve) = self.serve.take() {
            let _ = serve.send(serving);
        }
    }

    /// Closes what is open, and waits, bounded, until peers were told.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
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
        tokio::spawn(hand_over(session, link.receiver, serving.inputs.clone()));
    }
}

/// Hands a session's frames over until it ends.
async fn hand_over(session: SessionId, mut receiver: Receiver, inputs: mpsc::Sender<Input>) {
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
