//! A small cluster over real loopback QUIC: an authority, a listener, and devices that connect.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod hostile;
mod joining;
mod sessions;
mod trust;

use crate::*;
use fleetwire_common::{
    envelope::{
        Features,
        handshake::{HelloInfo, WelcomeInfo},
        keys::{Epoch, RootKeys, Secret},
    },
    fb,
    ids::{AttemptId, JobId, Name, Principal, TaskId, TokenId},
    message::{Message, MessageRef, Status},
    time::Time,
    token::JoinToken,
};
use std::{sync::Arc, time::Duration};

pub const NOW: Time = Time(1_800_000_000_000_000);
pub const LIMIT: Duration = Duration::from_secs(20);

/// Whatever a test waits for comes within [`LIMIT`].
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("nothing came in time")
}

pub struct Cluster {
    pub authority: Authority,
    pub root: RootKeys,
    pub epoch: Epoch,
    pub listener: Listener,
    pub clock: ClusterClock,
    pub address: String,
}

pub struct Peer {
    pub link: Link,
    pub clock: ClusterClock,
}

impl Cluster {
    pub fn start() -> Cluster {
        Self::with(LinkConfig::default())
    }

    pub fn with(config: LinkConfig) -> Cluster {
        let authority = Authority::create("test-cluster", NOW).unwrap();
        let server = authority.certify_server(NOW).unwrap();
        Self::serving(authority, &server, config)
    }

    pub fn serving(authority: Authority, server: &ServerIdentity, config: LinkConfig) -> Cluster {
        let root = RootKeys::new(Secret::new([1; 32]));
        let clock = ClusterClock::starting_at(NOW);
        let any = "127.0.0.1:0".parse().unwrap();
        let listener = Listener::bind(any, server, Arc::new(root.clone()), clock.clone(), config).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let epoch = Epoch { number: 1, secret: Secret::new([2; 32]) };
        Cluster { authority, root, epoch, listener, clock, address }
    }

    pub fn identity(&self, name: &str) -> Identity {
        let principal = agent(name);
        let key = DeviceKey::generate().unwrap();
        let enrolment = self.root.enrolment_key(&principal);
        self.authority.issue(&principal, key, enrolment, vec![self.address.clone()], NOW).unwrap()
    }

    pub fn token(&self, id: u32) -> JoinToken {
        JoinToken {
            id: TokenId(id),
            role: fb::Role::Agent,
            cluster: self.authority.cluster().to_owned(),
            authority_sha256: self.authority.sha256(),
            secret: self.root.token_secret(TokenId(id), Time(NOW.0 * 2)),
            issued_at: NOW,
            expires_at: Time(NOW.0 * 2),
            addresses: vec![self.address.clone()],
        }
    }

    pub async fn accept(&mut self) -> Accepted {
        soon(self.listener.accept()).await.unwrap()
    }

    /// Accepts and welcomes one session.
    pub async fn welcome(&mut self) -> Peer {
        let Accepted::Session(pending) = self.accept().await else { panic!("expected a session") };
        let link = pending.welcome(&self.epoch, &welcome_info(self.clock.now())).unwrap();
        Peer { link, clock: self.clock.clone() }
    }

    /// Both ends of a session.
    pub async fn session(&mut self, name: &str) -> (Peer, Peer) {
        self.session_with(name, &LinkConfig::default()).await
    }

    pub async fn session_with(&mut self, name: &str, config: &LinkConfig) -> (Peer, Peer) {
        let identity = self.identity(name);
        let addresses = [self.address.clone()];
        let clock = ClusterClock::starting_at(Time(5_000_000));
        let info = hello_info();
        let connecting = connect(&addresses, &identity, &info, &clock, config);
        let (agent, scheduler) = tokio::join!(soon(connecting), self.welcome());
        (Peer { link: agent.unwrap().link, clock }, scheduler)
    }

    /// What a listener made of the next connection that it refused.
    pub async fn refused(&mut self) -> AcceptError {
        match self.accept().await {
            Accepted::Refused(refused) => refused.error,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }
}

impl Peer {
    /// Receives until `count` messages came, and returns what `read` makes of each.
    pub async fn receive<T>(&mut self, count: usize, mut read: impl FnMut(MessageRef<'_>) -> T) -> Vec<T> {
        let mut read_so_far = Vec::new();
        let mut frames = Vec::new();
        while read_so_far.len() < count {
            soon(self.link.receiver.recv_many(&mut frames)).await.unwrap();
            for frame in frames.drain(..) {
                let tolerance = frame.tolerance_ms();
                let opened = self.link.opener.open(&frame.bytes, frame.stream, frame.arrived_ms, tolerance).unwrap();
                read_so_far.extend(opened.messages().map(|(_, message)| read(message)));
            }
        }
        assert_eq!(read_so_far.len(), count);
        read_so_far
    }

    /// Waits for the link's end.
    pub async fn ended(&mut self) -> LinkClosed {
        let mut frames = Vec::new();
        loop {
            if let Err(closed) = soon(self.link.receiver.recv_many(&mut frames)).await {
                return closed;
            }
        }
    }
}

pub fn agent(name: &str) -> Principal {
    Principal { role: fb::Role::Agent, name: Name::new(name).unwrap() }
}

pub fn hello_info() -> HelloInfo {
    HelloInfo {
        features: Features::ALL,
        boot_id: [3; 16],
        process_start_id: [4; 16],
        receipt: None,
        software: "test 1".into(),
    }
}

pub fn welcome_info(now: Time) -> WelcomeInfo {
    WelcomeInfo {
        features: Features::ALL,
        cluster_time: now,
        incarnation: 1,
        receipt: None,
        cluster: "test-cluster".into(),
        software: "test 1".into(),
    }
}

pub fn status(index: u32) -> Message {
    let attempt = AttemptId { task: TaskId { job: JobId(7), entry: 0, index }, attempt: 1 };
    let metrics = vec![("loss".into(), 0.25), ("accuracy".into(), f64::from(index))];
    let note = "epoch 3 of 10, batch 128".to_owned();
    Message::Status(Status {
        attempt,
        status: fb::TaskStatus::Running,
        progress: 0.5,
        note,
        metrics,
        end: None,
        job_key: Default::default(),
    })
}

/// A message with a body of `bytes`, which no compression shrinks.
pub fn log(request: u64, bytes: usize) -> Message {
    let mut random = request | 1;
    let data = std::iter::repeat_with(|| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 56) as u8
    });
    let chunk = fb::LogChunkT { request, data: Some(data.take(bytes).collect()), ..Default::default() };
    Message::Rare(fb::SchedulerMessageT::LogChunk(Box::new(chunk)))
}

pub fn index_of(message: MessageRef<'_>) -> u32 {
    match message {
        MessageRef::StatusUpdate(status) => status.update.task_id().unwrap().parse::<TaskId>().unwrap().index,
        other => panic!("expected a status update, got {:?}", other.kind()),
    }
}
