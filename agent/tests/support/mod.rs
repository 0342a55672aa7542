//! A scheduler that does what a test says, over the real link, and the real agent as a process.

use fleetwire_common::{
    envelope::{
        Features,
        handshake::{HelloInfo, Proof, WelcomeInfo},
        keys::{Epoch, RootKeys, Secret},
    },
    fb,
    ids::{AttemptId, JobId, Name, Position, Principal, TaskId, TokenId},
    job::{FileSpec, TaskSpec},
    message::{Ack, Assignment, End, Message, MessageRef, attempt_id},
    resources::Resources,
    time::Time,
    token::JoinToken,
};
use fleetwire_link::{Accepted, Authority, ClusterClock, Frame, Link, LinkConfig, Listener, Pending, ServerIdentity};
use std::{
    collections::VecDeque,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

/// Nothing in these tests takes this long unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Scheduler {
    authority: Authority,
    server: ServerIdentity,
    keys: RootKeys,
    epoch: Epoch,
    pub clock: ClusterClock,
    pub address: SocketAddr,
    listener: Option<Listener>,
}

impl Scheduler {
    pub async fn new() -> Scheduler {
        let clock = ClusterClock::from_wall();
        let authority = Authority::create("test", clock.now()).unwrap();
        let mut scheduler = Scheduler {
            server: authority.certify_server(clock.now()).unwrap(),
            authority,
            keys: RootKeys::new(Secret::new([1; 32])),
            epoch: Epoch { number: 1, secret: Secret::new([2; 32]) },
            clock,
            address: "127.0.0.1:0".parse().unwrap(),
            listener: None,
        };
        scheduler.listen().await;
        scheduler
    }

    /// Listens, after [`Scheduler::vanish`] again where it did, once that socket is free.
    pub async fn listen(&mut self) {
        let until = tokio::time::Instant::now() + PATIENCE;
        let listener = loop {
            let (keys, clock) = (Arc::new(self.keys.clone()), self.clock.clone());
            match Listener::bind(self.address, &self.server, keys, clock, LinkConfig::default()) {
                Ok(listener) => break listener,
                Err(error) => assert!(tokio::time::Instant::now() < until, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        self.address = listener.local_addr().unwrap();
        self.listener = Some(listener);
    }

    /// Goes away with its sessions.
    pub async fn vanish(&mut self) {
        let mut listener = self.listener.take().unwrap();
        listener.close(fb::ErrorCode::ShuttingDown, "gone").await;
    }

    pub fn token(&self) -> JoinToken {
        let expires_at = self.clock.now() + Duration::from_secs(3_600);
        JoinToken {
            id: TokenId(1),
            role: fb::Role::Agent,
            cluster: "test".into(),
            authority_sha256: self.authority.sha256(),
            secret: self.keys.token_secret(TokenId(1), Time(7)),
            issued_at: self.clock.now(),
            expires_at,
            addresses: vec![self.address.to_string()],
        }
    }

    async fn accept(&mut self) -> Accepted {
        let accepted = self.listener.as_mut().unwrap().accept();
        tokio::time::timeout(PATIENCE, accepted).await.expect("nobody came").unwrap()
    }

    /// Lets one device in, or refuses it with that code. Returns the SHA-256 of its key.
    pub async fn let_in(&mut self, refuse: Option<fb::ErrorCode>) -> [u8; 32] {
        loop {
            let Accepted::Joining(joining) = self.accept().await else { continue };
            let secret = self.keys.token_secret(TokenId(1), Time(7));
            let enrolling = joining.open(&secret).unwrap();
            let key = enrolling.csr.key_sha256;
            match refuse {
                Some(code) => enrolling.refuse(self.clock.now(), code, "no"),
                None => {
                    let principal = Principal { role: enrolling.role, name: Name::new(&enrolling.name).unwrap() };
                    let enrolment = self.keys.enrolment_key(&principal);
                    enrolling.certify(&self.authority, &principal, &enrolment, self.clock.now()).unwrap();
                }
            }
            return key;
        }
    }

    /// Waits for a session, up to its `Register`; does not answer that.
    pub async fn session(&mut self) -> (Peer, HelloInfo, fb::RegisterT) {
        let pending: Pending = loop {
            if let Accepted::Session(pending) = self.accept().await {
                break pending;
            }
        };
        let hello = pending.hello().clone();
        let welcome = WelcomeInfo {
            features: Features::ALL,
            cluster_time: self.clock.now(),
            incarnation: 1,
            receipt: Some(Proof { receipt: self.receipt(1), incarnation_id: [3; 16] }),
            cluster: "test".into(),
            software: "scripted".into(),
        };
        let link = pending.welcome(&self.epoch, &welcome).unwrap();
        let mut peer = Peer { link, said: VecDeque::new(), frames: Vec::new() };
        let register = peer
            .expect(|said| match said {
                Said::Register(register) => Some(*register),
                _ => None,
            })
            .await;
        (peer, hello, register)
    }

    /// Waits for a session and registers the agent: everything that it has is kept.
    pub async fn registered(&mut self, heartbeat_ms: u32) -> (Peer, fb::RegisterT) {
        let (peer, _, register) = self.session().await;
        let registered = fb::RegisteredT { heartbeat_interval_ms: heartbeat_ms, answer_every: 1, ..Default::default() };
        peer.send(Message::Rare(fb::SchedulerMessageT::Registered(Box::new(registered))));
        (peer, register)
    }

    pub fn receipt(&self, position: u64) -> fb::Receipt {
        fb::Receipt::new(1, position, &self.keys.receipt_mac(1, &[3; 16], Position(position)))
    }
}

/// The scheduler's end of one session.
pub struct Peer {
    pub link: Link,
    said: VecDeque<Said>,
    frames: Vec<Frame>,
}

/// What an agent said.
#[derive(Debug)]
pub enum Said {
    Register(Box<fb::RegisterT>),
    Accepted(AttemptId),
    Rejected(fb::ErrorCode),
    Status { attempt: AttemptId, status: fb::TaskStatus, progress: f32, metrics: Vec<(String, f64)>, end: Option<End> },
    Heartbeat { memory: u32, running: u32, frame_bytes: usize },
    Log(Box<fb::LogChunkT>),
    Deregister,
    Nack(Box<fb::NackT>),
    Other,
}

impl Peer {
    pub fn send(&self, message: Message) {
        self.link.sender.send(message).unwrap();
    }

    pub fn send_many(&self, messages: Vec<Message>) {
        self.link.sender.send_many(messages).unwrap();
    }

    pub fn assign(&self, scheduler: &Scheduler, attempt: AttemptId, spec: TaskSpec) {
        let receipt = scheduler.receipt(5);
        self.send(Message::Assignment(Assignment {
            attempt,
            spec: Arc::new(spec),
            receipt,
            deadline_ms: 0,
            stop_on_disconnect_after_ms: 0,
            job_key: Default::default(),
        }));
    }

    pub fn ack(&self, attempt: AttemptId) {
        self.send(Message::Ack(Ack::Final(attempt)));
    }

    /// Passes over what was said until something fits.
    pub async fn expect<T>(&mut self, mut fits: impl FnMut(Said) -> Option<T>) -> T {
        let found = async {
            loop {
                while let Some(said) = self.said.pop_front() {
                    if let Some(found) = fits(said) {
                        return found;
                    }
                }
                self.read().await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("the agent did not say it")
    }

    /// The status update with which the attempt ends.
    pub async fn ended(&mut self, id: AttemptId) -> (fb::TaskStatus, End) {
        self.expect(|said| match said {
            Said::Status { attempt, status, end: Some(end), .. } if attempt == id => Some((status, end)),
            _ => None,
        })
        .await
    }

    pub async fn running(&mut self, id: AttemptId) {
        self.expect(|said| match said {
            Said::Status { attempt, status: fb::TaskStatus::Running, .. } if attempt == id => Some(()),
            _ => None,
        })
        .await;
    }

    async fn read(&mut self) {
        self.link.receiver.recv_many(&mut self.frames).await.expect("the session ended");
        for frame in self.frames.drain(..) {
            let opened =
                self.link.opener.open(&frame.bytes, frame.stream, frame.arrived_ms, frame.tolerance_ms()).unwrap();
            self.said.extend(opened.messages().map(|(_, message)| said(message, frame.bytes.len())));
        }
    }
}

fn said(message: MessageRef<'_>, frame_bytes: usize) -> Said {
    match message {
        MessageRef::Register(register) => Said::Register(Box::new(register.unpack())),
        MessageRef::TaskAcceptance(yes) => Said::Accepted(attempt_id(yes.task_id(), yes.attempt()).unwrap()),
        MessageRef::TaskRejection(no) => Said::Rejected(no.code()),
        MessageRef::StatusUpdate(status) => Said::Status {
            attempt: attempt_id(status.update.task_id(), status.update.attempt()).unwrap(),
            status: status.update.status(),
            progress: status.update.progress(),
            metrics: status.metrics().map(|(name, value)| (name.to_owned(), value)).collect(),
            end: status.update.end().map(End::from_wire),
        },
        MessageRef::Heartbeat(beat) => Said::Heartbeat { memory: beat.memory(), running: beat.running(), frame_bytes },
        MessageRef::LogChunk(chunk) => Said::Log(Box::new(chunk.unpack())),
        MessageRef::Deregister(_) => Said::Deregister,
        MessageRef::Nack(nack) => Said::Nack(Box::new(nack.unpack())),
        _ => Said::Other,
    }
}

/// An agent's process.
pub struct AgentProcess {
    child: Child,
}

impl AgentProcess {
    pub fn start(data: &Path, more: &[&str]) -> AgentProcess {
        AgentProcess { child: command(data, more).spawn().unwrap() }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub async fn exited(&mut self) -> ExitStatus {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(tokio::time::Instant::now() < until, "the agent does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn command(data: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetwire-agent"));
    command.arg("--data").arg(data).args(["--storage", "10GB", "--log", "warn"]).args(more).stdin(Stdio::null());
    command
}

/// Runs an agent that is expected to fail, and returns what it says.
pub async fn failing(data: PathBuf, more: Vec<String>) -> String {
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    let mut child = command(&data, &more).stderr(Stdio::piped()).spawn().unwrap();
    let stderr = child.stderr.take().unwrap();
    let text = tokio::task::spawn_blocking(move || std::io::read_to_string(stderr).unwrap());
    let text = tokio::time::timeout(PATIENCE, text).await.expect("the agent does not end").unwrap();
    assert!(!child.wait().unwrap().success(), "{text}");
    text
}

pub fn id(index: u32, attempt: u32) -> AttemptId {
    AttemptId { task: TaskId { job: JobId(1), entry: 0, index }, attempt }
}

pub fn sh(script: &str) -> TaskSpec {
    TaskSpec {
        command: "sh".into(),
        arguments: vec!["-c".into(), script.into()],
        resources: Resources { cpu: 10, ..Resources::ZERO },
        files: vec![FileSpec { path: "in/a.txt".into(), data: b"hello".to_vec(), executable: false }],
        environment: vec![("PLACE".into(), "here".into())],
        parameters: "{\"n\":1}".into(),
        kill_grace_ms: 300,
        ..TaskSpec::default()
    }
}
