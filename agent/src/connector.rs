//! Keeps trying to open a session, with growing, jittered delays; says what is wrong once, not each time.

use crate::{
    limits::{KNOWN_TIME_INTERVAL, SESSION_LASTED},
    runner::error_chain,
};
use fleetwire_common::{
    envelope::{
        Features,
        handshake::{HelloInfo, Proof, WelcomeInfo},
    },
    time::Time,
};
use fleetwire_link::{Backoff, ClusterClock, ConnectError, Connected, Identity, Link, LinkConfig, connect};
use std::{path::PathBuf, pin::Pin, sync::Arc, time::Duration};

/// A session that was opened.
pub(crate) struct NewSession {
    pub link: Link,
    pub welcome: WelcomeInfo,
}

/// What this process says of itself in every `Hello`.
pub(crate) struct Hello {
    pub boot_id: [u8; 16],
    pub process_start_id: [u8; 16],
    pub software: String,
}

type Trying = Pin<Box<dyn Future<Output = Result<Connected, ConnectError>> + Send>>;

/// Opens sessions.
pub(crate) struct Connector {
    identity: Arc<Identity>,
    identity_path: PathBuf,
    config: LinkConfig,
    clock: ClusterClock,
    hello: Hello,
    backoff: Backoff,
    tried: bool,
    trying: Option<Trying>,
    /// When the latest session was opened.
    opened_at: Option<Time>,
    /// What was last said to be wrong.
    said: String,
}

impl Connector {
    /// Nothing is tried before [`Connector::connected`] is called.
    pub fn new(
        identity: Identity,
        identity_path: PathBuf,
        config: LinkConfig,
        clock: ClusterClock,
        hello: Hello,
    ) -> Connector {
        Connector {
            identity: Arc::new(identity),
            identity_path,
            config,
            clock,
            hello,
            backoff: Backoff::default(),
            tried: false,
            trying: None,
            opened_at: None,
            said: String::new(),
        }
    }

    /// Waits until a session is open. `receipt` is returned to the scheduler in `Hello`. May be dropped
    /// and called again.
    pub async fn connected(&mut self, receipt: Option<Proof>) -> NewSession {
        loop {
            if self.trying.is_none() {
                self.trying = Some(self.attempt(receipt));
            }
            let Some(trying) = &mut self.trying else { continue };
            let tried = trying.await;
            self.trying = None;
            match tried {
                Ok(connected) => return self.on_connected(connected),
                Err(error) => self.on_failed(&error),
            }
        }
    }

    /// The session ended; the next one is tried soon if it had lasted.
    pub fn on_session_ended(&mut self) {
        let lasted = self.opened_at.take().is_some_and(|at| ClusterClock::local().since(at) >= SESSION_LASTED);
        if lasted {
            self.backoff.reset();
        }
    }

    fn attempt(&mut self, receipt: Option<Proof>) -> Trying {
        // Only a process's first try goes out at once: a fleet that lost its scheduler comes back spread.
        let first = !std::mem::replace(&mut self.tried, true);
        let delay = if first { Duration::ZERO } else { self.backoff.delay() };
        let hello = HelloInfo {
            features: Features::ALL,
            boot_id: self.hello.boot_id,
            process_start_id: self.hello.process_start_id,
            receipt,
            software: self.hello.software.clone(),
        };
        let (identity, config, clock) = (Arc::clone(&self.identity), self.config.clone(), self.clock.clone());
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            connect(&identity.addresses, &identity, &hello, &clock, &config).await
        })
    }

    fn on_connected(&mut self, connected: Connected) -> NewSession {
        let Connected { link, welcome, .. } = connected;
        tracing::info!(
            cluster = welcome.cluster,
            agent = %self.identity.principal.name,
            scheduler = welcome.software,
            "connected"
        );
        self.remember_time(welcome.cluster_time);
        self.said.clear();
        self.opened_at = Some(ClusterClock::local());
        NewSession { link, welcome }
    }

    /// Writes cluster time down, at most once a day.
    fn remember_time(&mut self, cluster_time: Time) {
        if cluster_time < self.identity.known_time + KNOWN_TIME_INTERVAL {
            return;
        }
        Arc::make_mut(&mut self.identity).known_time = cluster_time;
        if let Err(error) = self.identity.save(&self.identity_path) {
            tracing::warn!(%error, path = %self.identity_path.display(), "the identity's known time is not kept");
        }
    }

    fn on_failed(&mut self, error: &ConnectError) {
        let text = error_chain(error);
        if text == self.said {
            tracing::debug!(error = text, "still not connected");
            return;
        }
        tracing::warn!(error = text, "cannot connect; trying on, and what runs goes on meanwhile");
        self.said = text;
    }
}
