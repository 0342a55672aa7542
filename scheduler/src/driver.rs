//! The loop around the core: drain what arrived, decide, append, let the journal's thread sync, release
//! what is durable. The core, the openers and the outbox live on this one thread.
//!
//! Invariants: nothing leaves before its position is durable; deadlines are handled only after everything
//! that had arrived; time never goes back; after a failed write or sync nothing more is released.

use crate::{
    data::Data,
    error::RunError,
    joining::Joiners,
    limits::{ARRIVED_MAX, OUTBOX_MAX, STALL_MIN, TICK},
    peers::Peers,
};
use fleetwire_common::{
    envelope::handshake::HelloInfo,
    facts::FactBatch,
    ids::{Position, Principal, SessionId},
    time::Time,
    token::JoinToken,
};
use fleetwire_disk::{JournalWriter, WriterFailed};
use fleetwire_journal::Outbox;
use fleetwire_link::{ClusterClock, Frame, Joining, LinkClosed, Sender};
use fleetwire_scheduler_core::{Effect, Effects, Event, Scheduler};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

/// What the network hands to the driver.
pub(crate) enum Input {
    /// A session was agreed.
    Connected {
        session: SessionId,
        principal: Principal,
        hello: HelloInfo,
        sender: Sender,
        opener: Box<fleetwire_common::envelope::Opener>,
    },
    /// Frames came.
    Frames { session: SessionId, frames: Vec<Frame> },
    /// A session is gone.
    Disconnected { session: SessionId, why: LinkClosed },
    /// A device asks to be let in.
    Joining { session: SessionId, joining: Box<Joining> },
}

/// Drives the core.
pub(crate) struct Driver {
    core: Scheduler,
    effects: Effects,
    outbox: Outbox<Effect>,
    journal: JournalWriter,
    clock: ClusterClock,
    peers: Peers,
    joiners: Joiners,
    durable: Position,
    /// The same for those who welcome sessions.
    durable_shared: Arc<AtomicU64>,
    inputs: mpsc::Receiver<Input>,
    synced: mpsc::UnboundedReceiver<Result<Position, WriterFailed>>,
    now: Time,
    /// The locked folder lives as long as we do.
    data: Option<Data>,
}

/// What a driver is made of.
pub(crate) struct Parts {
    pub core: Scheduler,
    pub journal: JournalWriter,
    pub clock: ClusterClock,
    pub joiners: Joiners,
    pub durable: Position,
    pub durable_shared: Arc<AtomicU64>,
    pub inputs: mpsc::Receiver<Input>,
    pub synced: mpsc::UnboundedReceiver<Result<Position, WriterFailed>>,
}

impl Driver {
    pub fn new(parts: Parts) -> Driver {
        let now = parts.clock.now();
        Driver {
            core: parts.core,
            effects: Effects::new(),
            outbox: Outbox::default(),
            journal: parts.journal,
            clock: parts.clock,
            peers: Peers::default(),
            joiners: parts.joiners,
            durable: parts.durable,
            durable_shared: parts.durable_shared,
            inputs: parts.inputs,
            synced: parts.synced,
            now,
            data: None,
        }
    }

    /// The core, for what the start report says.
    pub fn core(&self) -> &Scheduler {
        &self.core
    }

    /// Holds on to the data folder until the end.
    pub fn keep(&mut self, data: Data) {
        self.data = Some(data);
    }

    /// Decides that this incarnation has started, and waits until that is durable.
    pub async fn begin(&mut self) -> Result<(), RunError> {
        self.advance();
        self.core.start(self.now, &mut self.effects);
        self.settle().await.map(|_| ())
    }

    /// Lets the core handle one local event and waits until what it decided is durable; returns the token
    /// if one was made.
    pub async fn locally(&mut self, event: Event<'_>) -> Result<Option<JoinToken>, RunError> {
        self.advance();
        self.core.handle(self.now, event, &mut self.effects);
        self.settle().await
    }

    /// Runs until it is asked to stop, or can no more.
    pub async fn run(mut self, stop: &Notify) -> Result<(), RunError> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut arrived = Vec::with_capacity(ARRIVED_MAX);
        let mut stopping = false;
        while !stopping {
            let due = self.core.next_deadline();
            let wake = due.map(|due| Instant::now() + due.since(self.clock.now()));
            let takes_in = !self.outbox.is_full(OUTBOX_MAX);
            tokio::select! {
                biased;
                () = stop.notified() => stopping = true,
                synced = self.synced.recv() => self.on_synced(synced)?,
                _ = self.inputs.recv_many(&mut arrived, ARRIVED_MAX), if takes_in => {}
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
                _ = tick.tick() => {}
            }
            self.turn(&mut arrived, takes_in)?;
        }
        self.stop()
    }

    /// Handles everything that has arrived, then what is due, then lets out what is durable.
    fn turn(&mut self, arrived: &mut Vec<Input>, takes_in: bool) -> Result<(), RunError> {
        let stalled = self.advance();
        while takes_in
            && arrived.len() < ARRIVED_MAX
            && let Ok(input) = self.inputs.try_recv()
        {
            arrived.push(input);
        }
        if let Some(gap) = stalled {
            tracing::warn!("this process stood still for {} ms: leases are extended by that", gap.as_millis());
            self.core.handle(self.now, Event::Stalled { gap }, &mut self.effects);
        }
        // Was there more than one turn takes, then deadlines wait for the rest of it.
        let all = takes_in && arrived.len() < ARRIVED_MAX;
        for input in arrived.drain(..) {
            self.on_input(input);
        }
        if all && self.core.next_deadline().is_some_and(|due| due <= self.now) {
            self.core.handle(self.now, Event::Deadline, &mut self.effects);
        }
        self.commit()?;
        while let Ok(synced) = self.synced.try_recv() {
            self.on_synced(Some(synced))?;
        }
        self.release();
        Ok(())
    }

    /// Moves time on; says by how much this thread itself stood still, if it did.
    fn advance(&mut self) -> Option<Duration> {
        let now = self.clock.now().max(self.now);
        let gap = now.since(self.now);
        self.now = now;
        gap.checked_sub(TICK).filter(|gap| *gap >= STALL_MIN)
    }

    fn on_input(&mut self, input: Input) {
        let (now, core, effects) = (self.now, &mut self.core, &mut self.effects);
        match input {
            Input::Connected { session, principal, hello, sender, opener } => {
                tracing::debug!(%principal, session = session.0, "connected");
                self.peers.add(session, principal.clone(), sender, opener);
                core.handle(now, Event::Connected { session, principal, hello }, effects);
            }
            Input::Frames { session, frames } => self.peers.on_frames(session, &frames, now, core, effects),
            Input::Disconnected { session, why } => {
                if let Some(principal) = self.peers.remove(session) {
                    tracing::debug!(%principal, session = session.0, "disconnected: {why}");
                    core.handle(now, Event::Disconnected { session }, effects);
                }
            }
            Input::Joining { session, joining } => self.joiners.on_request(session, *joining, now, core, effects),
        }
    }

    /// Hands what was decided to the journal, and its effects to the outbox.
    fn commit(&mut self) -> Result<(), RunError> {
        if !self.effects.facts.is_empty() {
            let facts: FactBatch = std::mem::replace(&mut self.effects.facts, self.journal.spare());
            // Why the writer stopped comes on the other channel; nothing is released meanwhile.
            let _ = self.journal.append(facts);
        }
        for (position, effect) in self.effects.drain() {
            self.outbox.push(position, effect);
        }
        Ok(())
    }

    fn on_synced(&mut self, synced: Option<Result<Position, WriterFailed>>) -> Result<(), RunError> {
        let durable = synced.ok_or(RunError::Thread("journal"))?.map_err(RunError::Journal)?;
        self.durable = self.durable.max(durable);
        self.durable_shared.store(self.durable.0, Ordering::Release);
        Ok(())
    }

    fn release(&mut self) -> Option<JoinToken> {
        let mut made = None;
        for effect in self.outbox.release(self.durable) {
            match effect {
                Effect::Send { session, message } => self.peers.send(session, message),
                Effect::Close { session, code, reason } => self.peers.close(session, code, &reason),
                Effect::Certify { session, principal } => self.joiners.certify(session, &principal, self.now),
                Effect::RefuseEnrolment { session, code, message } => {
                    self.joiners.refuse(session, code, &message, self.now);
                }
                Effect::Token { token } => made = Some(token),
            }
        }
        self.peers.flush();
        made
    }

    /// Commits, and waits until all of it is durable.
    async fn settle(&mut self) -> Result<Option<JoinToken>, RunError> {
        self.commit()?;
        while self.durable < self.core.position() {
            let synced = self.synced.recv().await;
            self.on_synced(synced)?;
        }
        Ok(self.release())
    }

    fn stop(mut self) -> Result<(), RunError> {
        self.commit()?;
        self.peers.close_all();
        let durable = self.journal.stop().map_err(RunError::Journal)?;
        tracing::debug!(position = durable.0, "the journal is closed");
        Ok(())
    }
}
