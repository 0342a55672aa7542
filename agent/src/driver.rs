//! The driver: what arrives goes to the core, what the core decides goes to the journal, and what is
//! durable is done, in order. It has no opinions.
//!
//! Invariants: no effect is done before the facts it follows from are durable; a message leaves only in
//! the session for which the core said it; when the journal fails, the agent ends.

use crate::{
    AgentError,
    config::OnStop,
    connector::Connector,
    journal::FactLog,
    limits::*,
    probe::Probe,
    restart::BootMark,
    runner::{News, Runner},
};
use fleetwire_agent_core::{Agent, Effect, Effects, Event, RunEvent};
use fleetwire_common::{
    envelope::OpenError,
    fb,
    ids::{AttemptId, JobKey, Position},
    message::Message,
    time::Time,
};
use fleetwire_journal::Outbox;
use fleetwire_link::{ClusterClock, Frame, Link, Sender};
use std::{collections::VecDeque, future::pending, path::PathBuf, pin::Pin, time::Duration};

/// One running agent.
pub(crate) struct Driver {
    pub agent: Agent,
    pub effects: Effects,
    pub journal: FactLog,
    pub runner: Runner,
    pub probe: Probe,
    pub clock: ClusterClock,
    pub connector: Connector,
    pub folder: PathBuf,
    pub on_stop: OnStop,
    pub session: Option<Link>,
    pub outbox: Outbox<Released>,
    /// Counts sessions, so that an effect of one never reaches the next.
    pub sessions: u64,
    pub frames: Vec<Frame>,
    /// The session that was left last: it still sends what was queued.
    pub left: Option<Sender>,
    /// It was asked to stop.
    pub stopping: bool,
    /// The position at which memory was given back last.
    pub rested_at: Position,
    /// Attempts whose end is durable from that position on.
    pub ended: VecDeque<(Position, AttemptId)>,
    /// When the scheduler was heard, as the runner was told.
    pub heard: Option<Time>,
    /// Once what the restart found is durable, this boot is remembered.
    pub boot: Option<BootMark>,
    /// While a backlog flows, what its processes have to tell is looked at in lots.
    pub gather_until: Option<tokio::time::Instant>,
}

/// An effect on its way, with the session in which the core decided it.
pub(crate) struct Released {
    effect: Effect,
    session: u64,
}

/// Why the driver woke up.
enum Woken {
    Stop,
    Connected(Box<crate::connector::NewSession>),
    Frames,
    SessionEnded(String),
    News(Box<News>),
    Durable,
    Deadline,
}

impl Driver {
    /// Runs until `shutdown` is done, or the journal fails.
    pub async fn drive(&mut self, mut shutdown: Pin<&mut impl Future<Output = ()>>) -> Result<(), AgentError> {
        self.flush()?;
        loop {
            match self.wait(shutdown.as_mut()).await {
                Woken::Stop => return self.stop().await,
                woken => self.on_woken(woken),
            }
            self.flush()?;
        }
    }

    async fn wait(&mut self, shutdown: Pin<&mut impl Future<Output = ()>>) -> Woken {
        let next_deadline = self.agent.next_deadline();
        let receipt = self.agent.receipt();
        // When more waits for the disk than may, nothing is taken in until it has caught up.
        let taking = !self.outbox.is_full(OUTBOX_MAX);
        let gather_until = self.gather_until.filter(|_| self.agent.live().waiting() > 0);
        let Driver { session, connector, frames, runner, journal, .. } = self;
        let online = session.is_some();
        let received = async {
            match session {
                Some(link) => link.receiver.recv_many(frames).await,
                None => pending().await,
            }
        };
        let news = async {
            if let Some(at) = gather_until {
                tokio::time::sleep_until(at).await;
            }
            runner.next().await
        };
        tokio::select! {
            biased;
            () = shutdown => Woken::Stop,
            () = journal.moved() => Woken::Durable,
            came = received, if taking && online => match came {
                Ok(_) => Woken::Frames,
                Err(closed) => Woken::SessionEnded(closed.to_string()),
            },
            news = news, if taking => Woken::News(Box::new(news)),
            connected = connector.connected(receipt), if !online => Woken::Connected(Box::new(connected)),
            () = sleep_until(next_deadline) => Woken::Deadline,
        }
    }

    fn on_woken(&mut self, woken: Woken) {
        match woken {
            Woken::Stop | Woken::Durable | Woken::Deadline => {}
            Woken::Connected(new) => self.on_connected(*new),
            Woken::Frames => self.on_frames(),
            Woken::SessionEnded(reason) => self.end_session(fb::ErrorCode::None, &reason),
            Woken::News(news) => {
                self.on_news(*news);
                // One write and one sync for what came together.
                for _ in 0..NEWS_MAX {
                    let Some(news) = self.runner.try_next() else { break };
                    self.on_news(news);
                }
                self.gather_until = Some(tokio::time::Instant::now() + GATHER);
            }
        }
        // What had arrived came first; a flood of it does not hold deadlines up.
        if self.agent.next_deadline().is_some_and(|at| at <= ClusterClock::local()) {
            self.on_deadline();
        }
    }

    fn handle(&mut self, event: Event<'_>) {
        self.agent.handle(ClusterClock::local(), event, &mut self.effects);
    }

    fn on_connected(&mut self, new: crate::connector::NewSession) {
        let mut welcome = new.welcome;
        // The link has measured the round trip and set the clock; the core goes on from there.
        welcome.cluster_time = self.clock.now();
        self.session = Some(new.link);
        self.left = None;
        self.sessions += 1;
        self.handle(Event::Connected { welcome });
    }

    fn on_frames(&mut self) {
        let mut frames = std::mem::take(&mut self.frames);
        let mut refused = None;
        for frame in frames.drain(..) {
            let Some(link) = &mut self.session else { break };
            let tolerance_ms = frame.tolerance_ms();
            let opened = match link.opener.open(&frame.bytes, frame.stream, frame.arrived_ms, tolerance_ms) {
                Ok(opened) => opened,
                Err(error) if !error.is_fatal() => {
                    tracing::warn!(%error, "a message of the scheduler was refused");
                    let _ = link.sender.send(nack(&error, (frame.stream, 0, 0)));
                    continue;
                }
                Err(error) => {
                    refused = Some((error, frame.stream));
                    break;
                }
            };
            let (now, timestamp_ms) = (ClusterClock::local(), opened.timestamp_ms);
            for (_, message) in opened.messages() {
                self.agent.handle(now, Event::Received { message, timestamp_ms }, &mut self.effects);
            }
            for (item, error) in opened.refused() {
                tracing::warn!(%error, "a message of the scheduler was refused");
                let _ = link.sender.send(nack(error, (opened.stream, opened.sequence, *item)));
            }
        }
        frames.clear();
        self.frames = frames;
        if let Some((error, stream)) = refused {
            if let Some(link) = &self.session {
                let _ = link.sender.send(nack(&error, (stream, 0, 0)));
            }
            self.end_session(error.code(), &error.to_string());
        }
    }

    fn on_news(&mut self, news: News) {
        match news {
            News::Started { attempt, at_ms } => self.handle(Event::Run(RunEvent::Started { attempt, at_ms })),
            News::Report { attempt, report } => self.handle(Event::Run(RunEvent::Report {
                attempt,
                progress: report.progress,
                note: &report.note,
                metrics: &report.metrics,
            })),
            News::StagedStarted { attempt } => self.handle(Event::Run(RunEvent::StagedStarted { attempt })),
            News::Ended { attempt, status, end, next } => {
                tracing::debug!(%attempt, ?status, reason = ?end.reason, "attempt ended");
                self.handle(Event::Run(RunEvent::Ended { attempt, status, end, next }));
                self.ended.push_back((self.agent.position(), attempt));
            }
        }
    }

    fn on_deadline(&mut self) {
        let now = ClusterClock::local();
        if self.agent.next_heartbeat().is_some_and(|at| at <= now) {
            let usage = self.probe.usage(&self.folder);
            self.handle(Event::Usage(usage));
            self.rest();
        }
        self.handle(Event::Deadline);
    }

    /// Gives memory back that a burst of work made grow, once nothing runs any more.
    fn rest(&mut self) {
        let position = self.agent.position();
        let live = self.agent.live();
        let idle = live.running() == 0 && live.waiting() == 0 && self.outbox.is_empty() && self.effects.is_empty();
        if !idle || position == self.rested_at {
            return;
        }
        self.rested_at = position;
        self.effects = Effects::new();
        self.outbox = Outbox::default();
        self.frames = Vec::new();
        give_memory_back();
    }

    /// Appends what was decided, and does what is durable. Doing may decide more.
    fn flush(&mut self) -> Result<(), AgentError> {
        loop {
            if let Some(offset) = self.agent.cluster_offset_us() {
                self.clock.set_offset_us(offset);
            }
            if let Some(heard) = self.agent.live().heard().filter(|heard| Some(*heard) != self.heard) {
                self.heard = Some(heard);
                self.runner.on_heard(heard, self.agent.stops_unheard());
            }
            self.journal.append(&mut self.effects.facts)?;
            let session = self.sessions;
            for (position, effect) in self.effects.drain() {
                self.outbox.push(position, Released { effect, session });
            }
            let durable = self.journal.durable()?;
            if let Some(mark) = self.boot.take_if(|mark| mark.position <= durable) {
                mark.write();
            }
            while let Some((_, attempt)) = self.ended.pop_front_if(|(position, _)| *position <= durable) {
                self.runner.keep(attempt);
            }
            self.release(durable);
            if self.effects.is_empty() {
                return Ok(());
            }
        }
    }

    fn release(&mut self, durable: Position) {
        while let Some(Released { effect, session }) = { self.outbox.release(durable).next() } {
            match effect {
                Effect::Send(message) if session == self.sessions => self.send(message, false),
                Effect::Close { reason } if session == self.sessions => {
                    self.end_session(fb::ErrorCode::None, &reason);
                }
                Effect::Send(_) | Effect::Close { .. } => {} // Died with its session.
                Effect::Spawn { attempt, assignment, deadline_ms } => {
                    tracing::debug!(%attempt, command = assignment.command, "attempt starts");
                    let unheard = self.agent.stops_unheard_after(attempt);
                    let named = (attempt, self.agent.job_key(attempt));
                    self.runner.spawn(named, assignment, deadline_ms, unheard);
                }
                Effect::Stage { attempt, assignment } => {
                    let unheard = self.agent.stops_unheard_after(attempt);
                    let named = (attempt, self.agent.job_key(attempt));
                    self.runner.stage(named, assignment, unheard);
                }
                Effect::StartStaged => self.runner.start_staged(),
                Effect::Unstage { attempt } => {
                    self.runner.unstage(attempt, fb::EndReason::Released);
                }
                Effect::Cancel { attempt, grace } => {
                    tracing::debug!(%attempt, ?grace, "attempt is stopped");
                    self.runner.cancel(attempt, grace);
                }
                Effect::ReadLog { request, attempt, stream, offset, limit, job_key } => {
                    if session == self.sessions {
                        let answer = self.read_log(request, (attempt, job_key), stream, offset, limit);
                        self.send(answer, true);
                    }
                }
                Effect::Settled { attempt } => self.runner.release(attempt),
            }
        }
    }

    fn read_log(
        &self,
        request: u64,
        named: (AttemptId, JobKey),
        stream: fb::LogStream,
        offset: u64,
        limit: u32,
    ) -> Message {
        let waiting = self.session.as_ref().map_or(0, |link| link.sender.bulk_bytes_waiting());
        if waiting < LOG_BYTES_WAITING_MAX {
            return self.runner.read_log(request, named, stream, offset, limit);
        }
        let nack = fb::NackT {
            code: fb::ErrorCode::Busy,
            message: Some(format!("{waiting} bytes of output wait to be sent by this agent")),
            request,
            retriable: true,
            ..Default::default()
        };
        Message::Rare(fb::SchedulerMessageT::Nack(Box::new(nack)))
    }

    fn send(&mut self, message: Message, bulk: bool) {
        let Some(link) = &self.session else { return };
        let sent = if bulk { link.sender.send_bulk(message) } else { link.sender.send(message) };
        if let Err(error) = sent {
            self.end_session(fb::ErrorCode::Busy, &error.to_string());
        }
    }

    /// Leaves the session and tells the core; connecting begins anew.
    fn end_session(&mut self, code: fb::ErrorCode, reason: &str) {
        let Some(link) = self.session.take() else { return };
        link.sender.close(code, reason);
        self.left = Some(link.sender);
        self.sessions += 1;
        self.connector.on_session_ended();
        match self.stopping {
            true => tracing::info!(reason, "the session ended"),
            false => tracing::warn!(reason, "the session ended; connecting again"),
        }
        self.handle(Event::Disconnected);
    }

    /// Says goodbye. What runs goes on under its supervisors, or is stopped and waited for.
    async fn stop(&mut self) -> Result<(), AgentError> {
        self.stopping = true;
        if self.on_stop == OnStop::Cancel && self.runner.running() > 0 {
            for attempt in self.agent.unresolved().collect::<Vec<_>>() {
                self.runner.cancel(attempt, STOP_GRACE);
            }
            let until = tokio::time::Instant::now() + STOP_WITHIN;
            while self.runner.running() > 0 {
                let never = std::pin::pin!(pending());
                match tokio::time::timeout_at(until, self.wait(never)).await {
                    Ok(woken) => self.on_woken(woken),
                    Err(_) => break,
                }
                self.flush()?;
            }
        }
        self.handle(Event::Stopping { reason: "the agent was asked to stop" });
        let until = tokio::time::Instant::now() + STOP_WITHIN;
        self.flush()?;
        while !self.outbox.is_empty() {
            if tokio::time::timeout_at(until, self.journal.moved()).await.is_err() {
                break;
            }
            self.flush()?;
        }
        if let Some(left) = self.left.take() {
            // The process may exit once the scheduler has been told.
            let _ = tokio::time::timeout_at(until, left.closed()).await;
        }
        Ok(())
    }
}

async fn sleep_until(at: Option<Time>) {
    match at {
        Some(at) => {
            let left = at.since(ClusterClock::local());
            if !left.is_zero() {
                // The timer does not see suspend: look again soon after.
                tokio::time::sleep(left.min(SLEEP_MAX)).await;
            }
        }
        None => pending().await,
    }
}

/// Returns free memory to the operating system, which glibc keeps for itself otherwise: 5 MB after twenty
/// thousand tasks.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "the allocator's own function has no safe wrapper")]
    // SAFETY: it takes no pointer, and may be called at any time by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Answers what was refused: on which stream it came, its sequence and its place in the batch, as far as that is known.
fn nack(error: &OpenError, (stream, sequence, item): (u32, u64, u16)) -> Message {
    let message = Some(error.to_string());
    let nack = fb::NackT { code: error.code(), message, stream, sequence, item, ..Default::default() };
    Message::Rare(fb::SchedulerMessageT::Nack(Box::new(nack)))
}

/// Between SIGTERM and SIGKILL when a stopping agent takes its tasks along.
const STOP_GRACE: Duration = Duration::from_secs(2);
