//! The client's side of a session: requests are numbered, answers find their request, and a session
//! that is lost is opened again, with everything that may be asked twice asked again.
//!
//! Invariants: a call is answered once; what must not be repeated never is; nothing is connected for
//! as long as nobody asks anything.

use crate::{error::ClientError, transport::Transport};
use fleetwire_common::{fb, message::Message};
use std::{collections::BTreeMap, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};

/// A question, until its answer.
pub(crate) struct Call {
    /// Its request number is filled in here.
    pub message: fb::SchedulerMessageT,
    /// Whether it may be asked again in another session.
    pub repeatable: bool,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<fb::SchedulerMessageT, ClientError>>,
}

/// Runs until the last handle of the client is dropped.
pub(crate) struct Session {
    transport: Transport,
    calls: mpsc::Receiver<Call>,
    pending: BTreeMap<u64, Call>,
    next_request: u64,
}

enum Happened {
    Called(Call),
    Closed,
    Answers(Vec<(u64, fb::SchedulerMessageT)>),
    Lost,
    Waited,
}

impl Session {
    pub fn new(transport: Transport, calls: mpsc::Receiver<Call>) -> Session {
        Session { transport, calls, pending: BTreeMap::new(), next_request: 1 }
    }

    /// Drives the session.
    pub async fn run(mut self) {
        loop {
            self.pending.retain(|_, call| !call.answer.is_closed());
            if !self.transport.is_connected() && !self.pending.is_empty() {
                self.reconnect().await;
                continue;
            }
            match self.next().await {
                Happened::Called(call) => self.on_call(call),
                Happened::Answers(answers) => answers.into_iter().for_each(|(request, answer)| {
                    self.on_answer(request, answer);
                }),
                Happened::Lost => self.on_lost(),
                Happened::Waited => {}
                Happened::Closed => break,
            }
        }
        self.transport.finish().await;
    }

    async fn next(&mut self) -> Happened {
        let connected = self.transport.is_connected();
        tokio::select! {
            biased;
            answers = self.transport.receive(), if connected => match answers {
                Some(answers) => Happened::Answers(answers),
                None => Happened::Lost,
            },
            call = self.calls.recv() => call.map_or(Happened::Closed, Happened::Called),
            // Callers that gave up are swept out now and then, also when nothing else happens.
            () = sleep(SWEEP), if !self.pending.is_empty() => Happened::Waited,
        }
    }

    async fn reconnect(&mut self) {
        match self.transport.connect().await {
            Ok(()) => {
                let requests: Vec<u64> = self.pending.keys().copied().collect();
                requests.into_iter().for_each(|request| self.send(request));
            }
            Err(error) if error.retriable => sleep(error.wait).await,
            Err(error) => {
                for (_, call) in std::mem::take(&mut self.pending) {
                    let _ = call.answer.send(Err(error.error.clone()));
                }
            }
        }
    }

    fn on_call(&mut self, mut call: Call) {
        let request = self.next_request;
        self.next_request += 1;
        set_request(&mut call.message, request);
        self.pending.insert(request, call);
        if self.transport.is_connected() {
            self.send(request);
        }
    }

    fn send(&mut self, request: u64) {
        let Some(call) = self.pending.get(&request) else { return };
        if let Err(error) = self.transport.send(Message::Rare(call.message.clone()))
            && let Some(call) = self.pending.remove(&request)
        {
            let _ = call.answer.send(Err(error));
        }
    }

    fn on_answer(&mut self, request: u64, answer: fb::SchedulerMessageT) {
        // An answer to nobody: its caller gave up. Not worth a word.
        let Some(call) = self.pending.remove(&request) else { return };
        let answer = match answer {
            fb::SchedulerMessageT::Nack(nack) => Err(ClientError::Refused {
                code: nack.code,
                message: nack.message.unwrap_or_default(),
                details: nack.details.unwrap_or_default(),
            }),
            answer => Ok(answer),
        };
        let _ = call.answer.send(answer);
    }

    fn on_lost(&mut self) {
        let lost: Vec<u64> =
            self.pending.iter().filter(|(_, call)| !call.repeatable).map(|(request, _)| *request).collect();
        for request in lost {
            if let Some(call) = self.pending.remove(&request) {
                let _ = call.answer.send(Err(ClientError::ConnectionLost));
            }
        }
    }
}

/// Puts the number where the answer will name it.
fn set_request(message: &mut fb::SchedulerMessageT, request: u64) {
    match message {
        fb::SchedulerMessageT::SubmitJob(message) => message.request = request,
        fb::SchedulerMessageT::CancelWork(message) => message.request = request,
        fb::SchedulerMessageT::CreateToken(message) => message.request = request,
        fb::SchedulerMessageT::ChangeAgent(message) => message.request = request,
        fb::SchedulerMessageT::SetPolicy(message) => message.request = request,
        fb::SchedulerMessageT::SetSchedule(message) => message.request = request,
        fb::SchedulerMessageT::ChangeSchedule(message) => message.request = request,
        fb::SchedulerMessageT::PlanJob(message) => message.request = request,
        fb::SchedulerMessageT::Query(message) => message.request = request,
        fb::SchedulerMessageT::LogRequest(message) => message.request = request,
        other => debug_assert!(false, "{:?} is no question", other.scheduler_message_type()),
    }
}

const SWEEP: Duration = Duration::from_secs(5);
