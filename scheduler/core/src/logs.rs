//! The story of a log request: to the agent that has the log, and its answer back.
//!
//! Invariant: every request that was forwarded is answered once: by the agent, by its refusal, or by the
//! scheduler when the agent is gone or silent.

use crate::{
    core::{About, Core},
    deadlines::Deadline,
    event::{Effects, Origin, Rejected},
    live::LogWait,
    tasks::read_attempt,
};
use fleetwire_common::{
    fb,
    ids::{AgentId, AttemptId, SessionId},
    limits::LOG_CHUNK_BYTES_MAX,
    message::{Message, cut},
};

impl Core {
    /// A client asks for a piece of an attempt's output.
    pub fn on_log_request(
        &mut self,
        session: SessionId,
        message: fb::LogRequest<'_>,
        effects: &mut Effects,
    ) -> Result<(), Rejected> {
        let (attempt, agent) = self.locate_log(read_attempt(message.task_id(), message.attempt())?)?;
        let name = self.agent_name(agent);
        let to = self.session_of(agent).ok_or(Rejected::AgentUnreachable { name })?;
        let (all, each) = self.config.policy.logs_max;
        let full = self.live.logs.len() >= all;
        let Some(asker) = self.live.sessions.get_mut(&session) else { return Ok(()) };
        if full || asker.logs >= each {
            return Err(Rejected::Busy { what: "log requests", max: u64::from(each) });
        }
        asker.logs += 1;
        let number = self.live.number();
        let due_at = self.now + self.config.policy.log_within;
        self.live.logs.insert(
            number,
            LogWait { session, request: message.request(), agent, attempt, stream: message.stream(), due_at },
        );
        self.live.deadlines.arm(due_at, Deadline::Log(number));
        let forwarded = fb::LogRequestT {
            request: number,
            task_id: Some(attempt.task.to_string()),
            attempt: attempt.attempt,
            stream: message.stream(),
            offset: message.offset(),
            limit: message.limit().clamp(1, LOG_CHUNK_BYTES_MAX),
            job_key: self.state.job_key(attempt.task.job).0,
        };
        effects.send(to, Message::Rare(fb::SchedulerMessageT::LogRequest(Box::new(forwarded))));
        Ok(())
    }

    /// Which agent has an attempt's log. Attempt 0 is the latest.
    fn locate_log(&self, asked: AttemptId) -> Result<(AttemptId, AgentId), Rejected> {
        let task = asked.task;
        self.state.task_status(task).ok_or(Rejected::UnknownTask { task })?;
        let record = self.state.tasks.get(&task);
        let last = self.state.last_end(task);
        let ended = last.map(|ended| (ended.attempt, ended.agent));
        let open = record.into_iter().flat_map(|record| record.open.iter());
        let mut known = open.map(|open| (open.attempt, open.agent)).chain(ended);
        let found = match asked.attempt {
            0 => known.max_by_key(|(attempt, _)| *attempt),
            number => known.find(|(attempt, _)| *attempt == number),
        };
        let latest = record.map(|record| record.attempts).or(last.map(|ended| ended.latest)).unwrap_or(0);
        match found {
            Some((attempt, agent)) => Ok((AttemptId { task, attempt }, agent)),
            None if asked.attempt > 0 && asked.attempt <= latest => Err(Rejected::LogsGone { attempt: asked }),
            None => Err(Rejected::UnknownAttempt { attempt: asked }),
        }
    }

    /// An agent answers a log request. One that nobody waits for any more is passed over. Says whether
    /// somebody did.
    pub fn on_log_chunk(
        &mut self,
        agent: AgentId,
        message: fb::LogChunk<'_>,
        effects: &mut Effects,
    ) -> Result<bool, Rejected> {
        let Some(wait) = self.live.logs.get(&message.request()).filter(|wait| wait.agent == agent) else {
            return Ok(false);
        };
        let found = (read_attempt(message.task_id(), message.attempt())?, message.stream());
        if found != (wait.attempt, wait.stream) {
            let found = format!("{:?} of {}", found.1, found.0);
            return Err(Rejected::Invalid { what: "log", found, expected: "the log that was asked for" });
        }
        let bytes = message.data().map_or(0, |data| data.len());
        if bytes > LOG_CHUNK_BYTES_MAX as usize {
            return Err(Rejected::Invalid { what: "data", found: bytes.to_string(), expected: "at most 64 KiB" });
        }
        let Some(wait) = self.take_log(agent, message.request()) else { return Ok(false) };
        let mut chunk = message.unpack();
        chunk.request = wait.request;
        effects.send(wait.session, Message::Rare(fb::SchedulerMessageT::LogChunk(Box::new(chunk))));
        Ok(true)
    }

    /// An agent refuses a log request: its refusal goes to whoever asked. Says whether it was one.
    pub fn on_log_refused(&mut self, agent: AgentId, message: fb::Nack<'_>, effects: &mut Effects) -> bool {
        let Some(wait) = self.take_log(agent, message.request()) else { return false };
        let mut nack = message.unpack();
        nack.request = wait.request;
        for text in [&mut nack.message, &mut nack.details].into_iter().flatten() {
            text.truncate(cut(text).len());
        }
        (nack.stream, nack.sequence, nack.item) = (0, 0, 0);
        effects.send(wait.session, Message::Rare(fb::SchedulerMessageT::Nack(Box::new(nack))));
        true
    }

    /// An agent did not answer in time.
    pub fn on_log_due(&mut self, number: u64, effects: &mut Effects) {
        let Some(agent) = self.live.logs.get(&number).map(|wait| wait.agent) else { return };
        let Some(wait) = self.take_log(agent, number) else { return };
        let about = About { request: wait.request, attempt: None };
        let name = self.agent_name(agent);
        self.refuse(wait.session, Origin::default(), about, &Rejected::NoAnswer { name }, effects);
    }

    /// A session with log requests under way is gone.
    pub fn forget_logs(&mut self, session: SessionId, count: u32) {
        if count == 0 {
            return;
        }
        let waiting = self.live.logs.iter().filter(|(_, wait)| wait.session == session);
        let numbers: Vec<_> = waiting.map(|(number, wait)| (*number, wait.agent)).collect();
        for (number, agent) in numbers {
            self.take_log(agent, number);
        }
    }

    fn take_log(&mut self, agent: AgentId, number: u64) -> Option<LogWait> {
        self.live.logs.get(&number).filter(|wait| wait.agent == agent)?;
        let wait = self.live.logs.remove(&number)?;
        self.live.deadlines.disarm(wait.due_at, Deadline::Log(number));
        if let Some(session) = self.live.sessions.get_mut(&wait.session) {
            session.logs -= 1;
        }
        Some(wait)
    }
}
