//! The agent's process at work: what arrives is opened and handed to the core; what the core decided goes to
//! the record, the shadow, the journal and the outbox.

use super::{Arrived, Running};
use crate::{
    device::{News, Unheard},
    history::AgentHistory,
    invariants::{invariant_p5_only_honest_frames_are_opened, invariant_p7_state_is_what_facts_say},
    network::{ConnectionId, End, Peer},
    shadow::apply_of_agent,
    trace::{Violation, broken},
    wire::{Link, send},
    world::{Happening, Node, World},
};
use fleetwire_agent_core::{Event, RunEvent};
use fleetwire_common::{
    envelope::handshake::{Greeting, clock_offset_us},
    ids::AttemptId,
    limits::STALE_AFTER_MS,
    message::Message,
    time::Time,
};
use std::time::Duration;

impl Running {
    /// What an attempt's supervisor is told.
    pub(super) fn unheard(&self, attempt: AttemptId) -> Option<Unheard> {
        let heard = self.heard.unwrap_or(Time::ZERO);
        self.core.stops_unheard_after(attempt).map(|after| Unheard { after, heard })
    }

    pub(super) fn wake_soon(&mut self, world: &mut World, number: usize) {
        let after = world.between(Duration::from_micros(5), Duration::from_micros(200));
        self.wake_by(world, number, world.now + after);
    }

    pub(super) fn wake_by(&mut self, world: &mut World, number: usize, at: Time) {
        if at < self.wake_at {
            self.wake_at = at;
            world.queue.plan(at, Happening::Wake(Node::Agent(number), self.life));
        }
    }

    pub(super) fn on_arrived(
        &mut self,
        world: &mut World,
        me: (usize, Time),
        arrived: Arrived,
    ) -> Result<(), Violation> {
        let (number, now) = me;
        match arrived {
            Arrived::Gone(connection) => {
                if self.link.connection() == Some(connection) {
                    let open = matches!(self.link, Link::Open(..));
                    self.link = Link::Down;
                    self.sessions += 1;
                    if open {
                        self.core.handle(now, Event::Disconnected, &mut self.effects);
                    }
                    self.dial_again(world, number);
                }
            }
            Arrived::StagedStarted(attempt) => {
                let event = Event::Run(RunEvent::StagedStarted { attempt });
                self.core.handle(now, event, &mut self.effects);
            }
            Arrived::News(news, next) => self.on_news(now, news, next),
            Arrived::Stopping => {
                self.core.handle(now, Event::Stopping { reason: "asked to" }, &mut self.effects);
            }
            Arrived::Frame { connection, stream, bytes, arrived, forged } => {
                if self.link.connection() != Some(connection) || self.closed == Some(connection) {
                    return Ok(());
                }
                match std::mem::replace(&mut self.link, Link::Down) {
                    Link::Down => {}
                    Link::Greeting(connection, greeting, sent_us) => {
                        self.on_welcome(world, me, connection, (greeting, sent_us), &bytes);
                    }
                    Link::Open(connection, session) => {
                        self.link = Link::Open(connection, session);
                        return self.on_frame(world, me, stream, (&bytes, arrived, forged));
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn on_welcome(
        &mut self,
        world: &mut World,
        (number, now): (usize, Time),
        connection: ConnectionId,
        (greeting, sent_us): (Greeting, u64),
        frame: &[u8],
    ) {
        match greeting.on_welcome(frame) {
            Ok((session, mut welcome)) => {
                self.offset_us = clock_offset_us(sent_us, now.0, u64::MAX, welcome.cluster_time);
                // As this Welcome measured it: what the core still believes is of the session before.
                welcome.cluster_time = Time(now.0.saturating_add_signed(self.offset_us));
                self.link = Link::Open(connection, Box::new(session));
                self.sessions += 1;
                self.dials_failed = 0;
                self.core.handle(now, Event::Connected { welcome }, &mut self.effects);
            }
            Err(error) => {
                world.trace.say(world.now, || format!("agent {number}: handshake failed: {error}"));
                world.close(connection, End::Peer);
                self.dial_again(world, number);
            }
        }
    }

    pub(super) fn on_frame(
        &mut self,
        world: &mut World,
        (number, now): (usize, Time),
        stream: u32,
        (bytes, arrived, forged): (&[u8], Time, bool),
    ) -> Result<(), Violation> {
        let arrived_ms = self.cluster_time(arrived).as_ms();
        let Link::Open(_, session) = &mut self.link else { return Ok(()) };
        let opened = session.opener.open(bytes, stream, arrived_ms, STALE_AFTER_MS);
        invariant_p5_only_honest_frames_are_opened(forged, opened.as_ref().map(|_| ()))?;
        match opened {
            Err(_) if forged => Ok(()),
            Ok(opened) => {
                for (_, message) in opened.messages() {
                    world.trace.say(world.now, || format!("agent {number} ← {:?}", message.kind()));
                    let event = Event::Received { message, timestamp_ms: opened.timestamp_ms };
                    self.core.handle(now, event, &mut self.effects);
                }
                Ok(())
            }
            Err(error) => {
                world.trace.say(world.now, || format!("agent {number}: {error}"));
                self.end(world, number);
                Ok(())
            }
        }
    }

    pub(super) fn on_news(&mut self, now: Time, news: News, next: Option<AttemptId>) {
        let event = match &news {
            News::Started(attempt, at) => RunEvent::Started { attempt: *attempt, at_ms: at.as_ms() },
            News::Report(attempt, progress, note, metrics) => {
                RunEvent::Report { attempt: *attempt, progress: *progress, note, metrics }
            }
            News::Ended(attempt, status, end) => {
                RunEvent::Ended { attempt: *attempt, status: *status, end: end.clone(), next }
            }
        };
        self.core.handle(now, Event::Run(event), &mut self.effects);
    }

    pub(super) fn settle(&mut self, world: &mut World, history: &mut AgentHistory) -> Result<(), Violation> {
        for fact in self.effects.facts.iter() {
            world.trace.coverage.fact_of_agent(fact);
            history.apply(fact)?;
            apply_of_agent(&mut self.shadow, fact)?;
        }
        if !self.effects.facts.is_empty() {
            invariant_p7_state_is_what_facts_say("an agent", self.core.state(), &self.shadow)?;
        }
        self.writer.take(&mut self.effects.facts);
        for (position, effect) in self.effects.drain() {
            self.outbox.push(position, (self.sessions, effect));
        }
        if self.core.position() != history.position() {
            return broken("P7", "an agent's core and its record count facts differently");
        }
        Ok(())
    }

    pub(super) fn send(&mut self, world: &mut World, now: Time, messages: &[Message]) {
        let cluster_now = self.cluster_time(now);
        let Link::Open(connection, session) = &mut self.link else { return };
        let streams = &mut self.bulk_streams;
        send(world, *connection, End::Scheduler, &mut session.sealer, streams, cluster_now, messages);
    }

    /// The shell ends the session: the core hears of it as of any other end.
    pub(super) fn end(&mut self, world: &mut World, number: usize) {
        if let Some(connection) = self.link.connection().filter(|open| self.closed != Some(*open)) {
            self.closed = Some(connection);
            self.sessions += 1;
            world.close(connection, End::Peer);
            self.inbox.push_back(Arrived::Gone(connection));
            self.wake_soon(world, number);
        }
    }

    pub(super) fn dial_again(&mut self, world: &mut World, number: usize) {
        self.dials_failed += 1;
        let most = Duration::from_millis(100) * 2u32.pow(self.dials_failed.min(7));
        let after = world.between(most / 2, most);
        world.plan(after, Happening::Dial(Peer::Agent(number), self.life));
    }

    pub(super) fn cluster_time(&self, now: Time) -> Time {
        let offset = self.core.cluster_offset_us().unwrap_or(self.offset_us);
        Time(now.0.saturating_add_signed(offset))
    }
}
