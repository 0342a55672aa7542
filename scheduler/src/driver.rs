//! The loop around the core: drain what arrived, decide, append, let the journal's thread sync, release
//! what is durable. The core, the openers and the outbox live on this one thread.
//!
//! Invariants: nothing leaves before its position is durable; deadlines are handled only after everything
//! that had arrived when they came due, and not much later; what waits is bounded in number and bytes,
//! beyond which the rest is left where it came from; time never goes back; after a failed write or sync
//! nothing more is released.

use crate::{
    arrived::Arrived,
    bodies::Bodies,
    data::Data,
    decider::Decider,
    error::RunError,
    joining::Joiners,
    limits::{ARRIVED_MAX, INPUTS_MAX, SETTLE_WITHIN, STALL_MIN, TICK},
    patience::Patience,
    peers::Peers,
    refusals::Refusals,
};
use fleetwire_common::{
    envelope::handshake::HelloInfo,
    fb,
    ids::{Position, Principal, SessionId},
    message::Message,
    time::Time,
    token::JoinToken,
};
use fleetwire_disk::{JournalWriter, WriterFailed};
use fleetwire_link::{ClusterClock, Frame, Joining, LinkClosed, Sender};
use fleetwire_scheduler_core::{Effect, Event, Scheduler, bodies::Lacks};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    task::yield_now,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
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
    Frames { session: SessionId, frames: VecDeque<Frame> },
    /// A session is gone.
    Disconnected { session: SessionId, why: LinkClosed },
    /// A device asks to be let in.
    Joining { session: SessionId, joining: Box<Joining> },
}

/// Drives the core.
pub(crate) struct Driver {
    decider: Decider,
    clock: ClusterClock,
    peers: Peers,
    refusals: Arc<Refusals>,
    bodies: Bodies,
    joiners: Joiners,
    /// The durable position, for those who welcome sessions.
    durable_shared: Arc<AtomicU64>,
    inputs: mpsc::Receiver<Input>,
    /// What was taken from `inputs` and not handled yet: of one, maybe a part.
    arrived: Arrived,
    patience: Patience,
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
    pub bodies: Bodies,
    pub refusals: Arc<Refusals>,
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
            decider: Decider::new(parts.core, parts.journal, parts.durable),
            clock: parts.clock,
            peers: Peers::new(Arc::clone(&parts.refusals)),
            refusals: parts.refusals,
            bodies: parts.bodies,
            joiners: parts.joiners,
            durable_shared: parts.durable_shared,
            inputs: parts.inputs,
            arrived: Arrived::default(),
            patience: Patience::default(),
            synced: parts.synced,
            now,
            data: None,
        }
    }

    /// The core, for what the start report says.
    pub fn core(&self) -> &Scheduler {
        self.decider.core()
    }

    /// Holds on to the data folder until the end.
    pub fn keep(&mut self, data: Data) {
        self.data = Some(data);
    }

    /// Decides that this incarnation has started, and waits until that is durable.
    pub async fn begin(&mut self) -> Result<(), RunError> {
        self.advance();
        self.decider.start(self.now);
        self.settle().await.map(|_| ())
    }

    /// Lets the core handle one local event and waits until what it decided is durable; returns the token
    /// if one was made.
    pub async fn locally(&mut self, event: Event<'_>) -> Result<Option<JoinToken>, RunError> {
        self.advance();
        self.decider.handle(self.now, event);
        self.settle().await
    }

    /// Runs until it is asked to stop, or can no more.
    pub async fn run(mut self, stop: &Notify) -> Result<(), RunError> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopping = false;
        while !stopping {
            let takes_in = !self.decider.is_full();
            let wake = self.decider.core().next_deadline().map(|due| Instant::now() + due.since(self.clock.now()));
            tokio::select! {
                biased;
                () = stop.notified() => stopping = true,
                synced = self.synced.recv() => self.on_synced(synced)?,
                () = yield_now(), if takes_in && !self.arrived.is_empty() => {}
                input = self.inputs.recv(), if takes_in => {
                    self.arrived.push(input.ok_or(RunError::Thread("network"))?);
                }
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if takes_in && wake.is_some() => {}
                _ = tick.tick() => {}
            }
            self.turn()?;
        }
        self.stop().await
    }

    /// Handles what has arrived, then what is due, then lets out what is durable. Once too much waits for
    /// the disk, the rest of what has arrived is left for a later turn.
    fn turn(&mut self) -> Result<(), RunError> {
        if let Some(gap) = self.advance() {
            tracing::warn!("this process stood still for {} ms: leases are extended by that", gap.as_millis());
            self.decider.handle(self.now, Event::Stalled { gap });
        }
        self.decider.look_at_disk(self.now);
        let took_all = self.take_in();
        let mut handled = 0;
        while !self.decider.is_full()
            && let Some(input) = self.arrived.pop()
        {
            handled += 1;
            self.on_input(input);
        }
        let is_due = self.decider.core().next_deadline().is_some_and(|due| due <= self.now);
        // Each session's task can hold one more input, for which the queue had no room.
        let queued_max = ARRIVED_MAX + INPUTS_MAX + self.peers.count();
        if self.patience.is_over(is_due, handled, took_all && self.arrived.is_empty(), queued_max) {
            self.decider.handle(self.now, Event::Deadline);
        }
        self.decider.commit();
        while let Ok(synced) = self.synced.try_recv() {
            self.on_synced(Some(synced))?;
        }
        self.release();
        Ok(())
    }

    /// Takes in as much as one turn may handle; says whether that was everything.
    fn take_in(&mut self) -> bool {
        while self.arrived.len() < ARRIVED_MAX && !self.decider.is_full() {
            match self.inputs.try_recv() {
                Ok(input) => self.arrived.push(input),
                Err(_) => return true,
            }
        }
        false
    }

    /// Moves time on; says by how much this thread itself stood still, if it did.
    fn advance(&mut self) -> Option<Duration> {
        let now = self.clock.now().max(self.now);
        let gap = now.since(self.now);
        self.now = now;
        gap.checked_sub(TICK).filter(|gap| *gap >= STALL_MIN)
    }

    fn on_input(&mut self, input: Input) {
        let (now, decider) = (self.now, &mut self.decider);
        match input {
            Input::Connected { session, principal, hello, sender, opener } => {
                tracing::debug!(%principal, session = session.0, "connected");
                let address = sender.remote_address().ip().to_canonical().to_string();
                self.peers.add(session, principal.clone(), sender, opener);
                decider.handle(now, Event::Connected { session, principal, hello, address: &address });
            }
            Input::Frames { session, mut frames } => {
                while !decider.is_full()
                    && let Some(frame) = frames.pop_front()
                {
                    self.peers.on_frame(session, &frame, now, decider);
                }
                if !frames.is_empty() {
                    self.arrived.give_back(Input::Frames { session, frames });
                }
            }
            Input::Disconnected { session, why } => {
                self.refusals.count_closed(&why);
                if let Some(principal) = self.peers.remove(session) {
                    tracing::debug!(%principal, session = session.0, "disconnected: {why}");
                    decider.handle(now, Event::Disconnected { session });
                }
            }
            Input::Joining { session, joining } => self.joiners.on_request(session, *joining, now, decider),
        }
    }

    fn on_synced(&mut self, synced: Option<Result<Position, WriterFailed>>) -> Result<(), RunError> {
        let durable = synced.ok_or(RunError::Thread("journal"))?.map_err(RunError::Journal)?;
        self.decider.on_durable(durable);
        self.durable_shared.fetch_max(durable.0, Ordering::Release);
        Ok(())
    }

    fn release(&mut self) -> Option<JoinToken> {
        let mut made = None;
        let mut unreadable = Vec::new();
        for effect in self.decider.release() {
            match effect {
                Effect::Send { session, message } => self.peers.send(session, message),
                Effect::Complete { session, mut message, lacks: Lacks::Metrics } => {
                    if let Message::Rare(fb::SchedulerMessageT::Page(page)) = &mut message {
                        page.metrics = Some(self.refusals.to_text(self.peers.count()));
                    }
                    self.peers.send(session, message);
                }
                Effect::Complete { session, mut message, lacks } => match self.bodies.complete(&mut message, &lacks) {
                    Ok(()) => self.peers.send(session, message),
                    Err(error) => unreadable.push((session, message, error.to_string())),
                },
                Effect::Close { session, code, reason } => self.peers.close(session, code, &reason),
                Effect::Certify { session, principal } => self.joiners.certify(session, &principal, self.now),
                Effect::RefuseEnrolment { session, code, message } => {
                    self.joiners.refuse(session, code, &message, self.now);
                }
                Effect::Token { token } => made = Some(token),
            }
        }
        self.peers.flush();
        for (session, message, why) in unreadable {
            tracing::error!("{why}");
            self.decider.handle(self.now, Event::Unreadable { session, message, why });
        }
        self.decider.commit();
        made
    }

    /// Commits, and waits until all of it is durable.
    async fn settle(&mut self) -> Result<Option<JoinToken>, RunError> {
        self.decider.commit();
        while !self.decider.is_settled() {
            let synced = self.synced.recv().await;
            self.on_synced(synced)?;
        }
        Ok(self.release())
    }

    /// Answers what was decided, then ends the sessions, then the journal.
    async fn stop(mut self) -> Result<(), RunError> {
        match timeout(SETTLE_WITHIN, self.settle()).await {
            Ok(settled) => drop(settled?),
            // Whoever was not answered asks again.
            Err(_) => {
                tracing::warn!("the disk is slow: not everything that was decided could be answered");
                self.release();
            }
        }
        self.peers.close_all();
        let durable = self.decider.stop().map_err(RunError::Journal)?;
        tracing::debug!(position = durable.0, "the journal is closed");
        Ok(())
    }
}
