//! Clients, joiners and misbehaving peers against a whole scheduler over real QUIC: each gets its typed
//! answer, and the scheduler goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use fleetwire_client::{Client, ClientError, Work, login, new_submit_id};
use fleetwire_common::{
    envelope::{Features, handshake::HelloInfo},
    fb,
    ids::{AttemptId, JobId, Name, TaskId},
    job::{JobSpec, TaskSpec},
    labels::Texts,
    message::{Heartbeat, Message, MessageRef, Status},
    token::JoinToken,
};
use fleetwire_link::{ClusterClock, DeviceKey, Identity, Link, LinkClosed, LinkConfig, connect, enrol};
use fleetwire_scheduler::{Scheduler, SchedulerConfig, Started};
use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;

struct Cluster {
    scheduler: Scheduler,
    started: Started,
    folder: TempDir,
}

impl Cluster {
    async fn start() -> Cluster {
        let folder = TempDir::new().unwrap();
        let (scheduler, started) = Self::launch(&folder, 0).await;
        Cluster { scheduler, started, folder }
    }

    async fn launch(folder: &TempDir, port: u16) -> (Scheduler, Started) {
        let listen = (Ipv4Addr::LOCALHOST, port).into();
        Scheduler::start(SchedulerConfig { listen, ..SchedulerConfig::new(folder.path()) }).await.unwrap()
    }

    /// Stops it and starts it again on the same port.
    async fn restart(&mut self) {
        self.scheduler.stop();
        self.scheduler.ended().await.unwrap();
        let (scheduler, _) = Self::launch(&self.folder, self.started.address.port()).await;
        self.scheduler = scheduler;
    }

    fn operator(&self) -> Identity {
        Identity::load(&self.started.operator).unwrap()
    }

    async fn client(&self) -> Client {
        Client::connect(self.operator()).await.unwrap()
    }

    async fn token(&self, role: fb::Role, uses: u32) -> JoinToken {
        let text = self.client().await.create_token(role, uses, Duration::from_secs(60)).await.unwrap();
        JoinToken::from_text(&text).unwrap()
    }

    async fn join(&self, role: fb::Role, name: &str) -> Identity {
        let token = self.token(role, 1).await;
        let key = DeviceKey::generate().unwrap();
        enrol(&token, &Name::new(name).unwrap(), &key, &LinkConfig::default()).await.unwrap()
    }
}

/// What every scheduler in this process logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn of_this_process() -> Log {
        let log = Log::default();
        let writer = log.clone();
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
        log
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn job(name: &str) -> JobSpec {
    let task = TaskSpec { executor: fb::Executor::Noop, ..TaskSpec::default() };
    JobSpec::new(Name::new(name).unwrap(), vec![task], 300).unwrap()
}

/// A job nearly as large as one frame may carry, which takes little room on the way.
fn large_job(name: &str) -> JobSpec {
    let task = |task: &str| TaskSpec {
        name: Name::new(task).unwrap(),
        executor: fb::Executor::Noop,
        parameters: format!("\"{}\"", "x".repeat(92_500)),
        ..TaskSpec::default()
    };
    JobSpec::new(Name::new(name).unwrap(), vec![task("one"), task("other")], 300).unwrap()
}

fn submit(job: &JobSpec) -> Message {
    let submit =
        fb::SubmitJobT { request: 1, submit_id: Some(new_submit_id().unwrap().0.to_vec()), job: Some(job.to_wire()) };
    Message::Rare(fb::SchedulerMessageT::SubmitJob(Box::new(submit)))
}

fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> fb::ErrorCode {
    result.unwrap_err().code().expect("a refusal")
}

async fn open(identity: &Identity) -> Link {
    let hello = HelloInfo {
        features: Features::ALL,
        boot_id: [1; 16],
        process_start_id: [2; 16],
        receipt: None,
        software: "test".into(),
    };
    let clock = ClusterClock::from_wall();
    connect(&identity.addresses, identity, &hello, &clock, &LinkConfig::default()).await.unwrap().link
}

/// How many messages of a kind come with the next frames, or why the link is closed.
async fn received(link: &mut Link, kind: fb::SchedulerMessage) -> Result<usize, LinkClosed> {
    let mut frames = Vec::new();
    link.receiver.recv_many(&mut frames).await?;
    let mut count = 0;
    for frame in &frames {
        let opened = link.opener.open(&frame.bytes, frame.stream, frame.arrived_ms, frame.tolerance_ms()).unwrap();
        count += opened.messages().filter(|(_, message)| message.kind() == kind).count();
    }
    Ok(count)
}

/// How many messages of a kind come until the link is closed, and why it is.
async fn until_closed(link: &mut Link, kind: fb::SchedulerMessage) -> (usize, LinkClosed) {
    let mut count = 0;
    loop {
        match received(link, kind).await {
            Ok(more) => count += more,
            Err(why) => return (count, why),
        }
    }
}

/// The code of the next Nack.
async fn nack(link: &mut Link) -> fb::ErrorCode {
    let mut frames = Vec::new();
    loop {
        frames.clear();
        link.receiver.recv_many(&mut frames).await.expect("an open session");
        for frame in &frames {
            let opened = link.opener.open(&frame.bytes, frame.stream, frame.arrived_ms, frame.tolerance_ms()).unwrap();
            for (_, message) in opened.messages() {
                if let MessageRef::Nack(nack) = message {
                    return nack.code();
                }
            }
        }
    }
}

fn register() -> Message {
    let register = fb::RegisterT {
        capacity: Some(Box::new(fb::ResourceSpecT { cpu: 1_000, memory: 100, gpu: 0, storage: 1, custom: None })),
        agent_types: Some(fb::AgentType::ENUM_VALUES.to_vec()),
        executors: Some(vec![fb::Executor::Process]),
        data_id: Some(vec![7; 16]),
        ..Default::default()
    };
    Message::Rare(fb::SchedulerMessageT::Register(Box::new(register)))
}

#[tokio::test]
async fn a_submit_is_accepted_once_however_often_it_is_sent() {
    let mut cluster = Cluster::start().await;
    let client = cluster.client().await;
    let id = new_submit_id().unwrap();
    let first = client.submit_as(id, &job("one")).await.unwrap();
    assert!(!first.repeated);
    let again = client.submit_as(id, &job("one")).await.unwrap();
    assert_eq!((again.job, again.repeated), (first.job, true));
    assert_eq!(code(client.submit_as(id, &job("two")).await), fb::ErrorCode::Conflict);

    // Also after the scheduler was stopped and came back: the client connects again by itself.
    cluster.restart().await;
    let later = client.submit_as(id, &job("one")).await.unwrap();
    assert_eq!((later.job, later.repeated), (first.job, true));
    assert_eq!(client.jobs(0, 100, &Texts::new()).await.unwrap().rows.len(), 1);
    assert_eq!(client.cluster().await.unwrap().incarnation, 2);
}

#[tokio::test]
async fn questions_about_nothing_get_their_own_errors() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let nobody = TaskId { job: JobId(9), entry: 0, index: 0 };
    assert_eq!(code(client.job(JobId(9)).await), fb::ErrorCode::UnknownJob);
    assert_eq!(code(client.cancel(Work::Job(JobId(9))).await), fb::ErrorCode::UnknownJob);
    assert_eq!(code(client.agent("nobody").await), fb::ErrorCode::UnknownAgent);
    let task = code(client.task(nobody).await);
    assert!(matches!(task, fb::ErrorCode::UnknownTask | fb::ErrorCode::UnknownJob), "{task:?}");
    let submitted = client.submit(&job("waits")).await.unwrap();
    let task = TaskId { job: submitted.job, entry: 0, index: 0 };
    assert_eq!(code(client.result(task).await), fb::ErrorCode::NoResult);
    assert_eq!(client.explain(task).await.unwrap().status, "pending");
    client.cancel(Work::Task(task)).await.unwrap();
    let ended = client.watch(submitted.job, |_| ()).await.unwrap();
    assert_eq!((ended.status, ended.counts.cancelled), ("cancelled", 1));
}

#[tokio::test]
async fn a_viewer_looks_and_changes_nothing() {
    let cluster = Cluster::start().await;
    let client = Client::connect(cluster.join(fb::Role::Viewer, "eye").await).await.unwrap();
    assert!(client.jobs(0, 10, &Texts::new()).await.unwrap().rows.is_empty());
    assert_eq!(code(client.submit(&job("one")).await), fb::ErrorCode::Authorization);
    assert_eq!(code(client.cancel(Work::Job(JobId(1))).await), fb::ErrorCode::Authorization);
    let token = client.create_token(fb::Role::Operator, 1, Duration::from_secs(60)).await;
    assert_eq!(code(token), fb::ErrorCode::Authorization);
    assert_eq!(client.cluster().await.unwrap().jobs, 0);
}

#[tokio::test]
async fn join_tokens_are_good_for_what_they_say_and_no_more() {
    let cluster = Cluster::start().await;
    let token = cluster.token(fb::Role::Operator, 1).await;
    let anna = login(&token, &Name::new("anna").unwrap()).await.unwrap();
    assert_eq!(anna.principal.to_string(), "operator/anna");
    Client::connect(anna).await.unwrap().cluster().await.unwrap();
    let refused = |token: JoinToken, name: &'static str| async move {
        login(&token, &Name::new(name).unwrap()).await.unwrap_err().code()
    };
    assert_eq!(refused(token, "bert").await, fb::ErrorCode::TokenUsedUp);

    // A name that was issued before, to another key.
    let token = cluster.token(fb::Role::Operator, 2).await;
    assert_eq!(refused(token.clone(), "anna").await, fb::ErrorCode::NameTaken);
    // Another role than the token's.
    let agent = JoinToken { role: fb::Role::Agent, ..token.clone() };
    assert_eq!(refused(agent, "dora").await, fb::ErrorCode::TokenWrongRole);
    // A secret that is not the token's.
    let forged = JoinToken { secret: fleetwire_common::envelope::keys::Secret::new([9; 32]), ..token.clone() };
    assert_eq!(refused(forged, "emil").await, fb::ErrorCode::Authorization);
    // A token of which nobody knows.
    let unknown = JoinToken { id: fleetwire_common::ids::TokenId(4_711), ..token.clone() };
    assert_eq!(refused(unknown, "fred").await, fb::ErrorCode::TokenUnknown);
    // Another cluster's CA: not even asked.
    let foreign = JoinToken { authority_sha256: [1; 32], ..token.clone() };
    assert_eq!(refused(foreign, "gina").await, fb::ErrorCode::Authorization);

    // A token whose time is over while it is used.
    let short = cluster.client().await.create_token(fb::Role::Operator, 1_000, Duration::from_secs(1)).await.unwrap();
    let short = JoinToken::from_text(&short).unwrap();
    let mut joined = 0;
    let refused = loop {
        match login(&short, &Name::new(&format!("hans-{joined}")).unwrap()).await {
            Ok(_) => joined += 1,
            Err(error) => break error.code(),
        }
    };
    assert_eq!((refused, joined > 0), (fb::ErrorCode::TokenExpired, true));
    // And the good one is still good.
    login(&token, &Name::new("carl").unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_lost_answer_can_be_asked_for_again_with_the_same_key() {
    let cluster = Cluster::start().await;
    let token = cluster.token(fb::Role::Agent, 1).await;
    let (name, key) = (Name::new("pi").unwrap(), DeviceKey::generate().unwrap());
    let first = enrol(&token, &name, &key, &LinkConfig::default()).await.unwrap();
    let again = enrol(&token, &name, &key, &LinkConfig::default()).await.unwrap();
    assert_eq!(first.principal, again.principal);
    open(&again).await;
}

#[tokio::test]
async fn identities_of_another_cluster_open_no_session() {
    let (one, two) = (Cluster::start().await, Cluster::start().await);
    let mut stranger = one.operator();
    stranger.addresses = vec![two.started.address.to_string()];
    let error = Client::connect(stranger).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    two.client().await.cluster().await.unwrap();
}

#[tokio::test]
async fn agents_may_not_submit_nor_speak_for_others_and_their_sessions_go_on() {
    let cluster = Cluster::start().await;
    let mut link = open(&cluster.join(fb::Role::Agent, "pi").await).await;
    let submit = fb::SubmitJobT {
        request: 1,
        submit_id: Some(new_submit_id().unwrap().0.to_vec()),
        job: Some(job("mine").to_wire()),
    };
    let status = |task: TaskId| {
        Message::Status(Status {
            attempt: AttemptId { task, attempt: 1 },
            status: fb::TaskStatus::Completed,
            progress: 1.0,
            note: String::new(),
            metrics: Vec::new(),
            end: Some(Box::default()),
            job_key: Default::default(),
        })
    };
    let task = TaskId { job: JobId(1), entry: 0, index: 0 };
    // Before it has registered, nothing but that.
    link.sender.send(status(task)).unwrap();
    assert_eq!(nack(&mut link).await, fb::ErrorCode::WrongState);
    link.sender.send(Message::Rare(fb::SchedulerMessageT::SubmitJob(Box::new(submit)))).unwrap();
    assert_eq!(nack(&mut link).await, fb::ErrorCode::Authorization);
    link.sender.send(register()).unwrap();
    link.sender.send(status(task)).unwrap();
    assert_eq!(nack(&mut link).await, fb::ErrorCode::UnknownAttempt);
    let query = fb::QueryT { request: 5, kind: fb::QueryKind::Jobs, ..Default::default() };
    link.sender.send(Message::Rare(fb::SchedulerMessageT::Query(Box::new(query)))).unwrap();
    assert_eq!(nack(&mut link).await, fb::ErrorCode::Authorization);

    // A number that is none is refused by itself; the session, and what follows, goes on.
    // (Our own sender would not write it, so it is written as the schema's table.)
    let update = |progress| {
        let task_id = Some(task.to_string());
        let update =
            fb::StatusUpdateT { task_id, attempt: 1, status: fb::TaskStatus::Running, progress, ..Default::default() };
        Message::Rare(fb::SchedulerMessageT::StatusUpdate(Box::new(update)))
    };
    link.sender.send(update(f32::NAN)).unwrap();
    assert_eq!(nack(&mut link).await, fb::ErrorCode::Validation);
    link.sender.send(Message::Heartbeat(Heartbeat::default())).unwrap();
    link.sender.send(update(0.5)).unwrap();
    assert_eq!(nack(&mut link).await, fb::ErrorCode::UnknownAttempt);
    let view = cluster.client().await.agent("pi").await.unwrap();
    assert!(view.connected && view.capacity.cpu_millicores == 1_000);
}

#[tokio::test]
async fn a_peer_that_floods_is_closed_and_the_others_are_served() {
    let cluster = Cluster::start().await;
    let mut flood = open(&cluster.join(fb::Role::Viewer, "flood").await).await;
    let query = || {
        let query = fb::QueryT { request: 1, kind: fb::QueryKind::Cluster, ..Default::default() };
        Message::Rare(fb::SchedulerMessageT::Query(Box::new(query)))
    };
    let sending = async {
        // Answers are not read either: the queue towards the flood is bounded too.
        while flood.sender.send_many((0..256).map(|_| query())).is_ok() {
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            let mut frames = Vec::new();
            let received = tokio::time::timeout(Duration::from_millis(1), flood.receiver.recv_many(&mut frames));
            if matches!(received.await, Ok(Err(_))) {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), sending).await.expect("the flood is closed");
    cluster.client().await.cluster().await.unwrap();
}

#[tokio::test]
async fn a_peer_that_does_not_read_its_answers_is_closed_and_told_so() {
    let cluster = Cluster::start().await;
    let task = TaskSpec { executor: fb::Executor::Noop, count: 1_000, ..TaskSpec::default() };
    let many = JobSpec::new(Name::new("many").unwrap(), vec![task], 300).unwrap();
    let job = cluster.client().await.submit(&many).await.unwrap().job;
    let slow = open(&cluster.join(fb::Role::Viewer, "slow").await).await;
    let query = |request| {
        let query = fb::QueryT { request, kind: fb::QueryKind::Tasks, job: job.0, limit: 1_000, ..Default::default() };
        Message::Rare(fb::SchedulerMessageT::Query(Box::new(query)))
    };
    // Its answers are more than the transport and its queue take, and less than it may ask for.
    slow.sender.send_many((0..400).map(query)).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), slow.sender.closed()).await.expect("it is closed");
    let LinkClosed::ByPeer { code: fb::ErrorCode::Busy, reason } = &ended else { panic!("{ended}") };
    assert_eq!(reason, "too much waits to be sent");
    cluster.client().await.cluster().await.unwrap();
}

#[tokio::test]
async fn a_peer_that_sends_what_is_refused_again_and_again_is_closed() {
    let log = Log::of_this_process();
    let cluster = Cluster::start().await;
    let mut link = open(&cluster.join(fb::Role::Agent, "pi").await).await;
    link.sender.send(register()).unwrap();
    let update = || {
        let task_id = Some(TaskId { job: JobId(1), entry: 0, index: 0 }.to_string());
        let status = fb::TaskStatus::Running;
        let update = fb::StatusUpdateT { task_id, attempt: 1, status, progress: f32::NAN, ..Default::default() };
        Message::Rare(fb::SchedulerMessageT::StatusUpdate(Box::new(update)))
    };
    // Sent as one: they come as the items of batches, which are refused one by one.
    link.sender.send_many((0..2_000).map(|_| update())).unwrap();
    let ended = until_closed(&mut link, fb::SchedulerMessage::Nack);
    let (nacks, why) = tokio::time::timeout(Duration::from_secs(60), ended).await.expect("it is closed");
    assert!(matches!(why, LinkClosed::ByPeer { code: fb::ErrorCode::RateLimited, .. }), "{why}");
    assert!((1..=100).contains(&nacks), "{nacks} answers");
    let metrics = cluster.client().await.metrics().await.unwrap();
    for line in ["refused_total{class=\"number\"} 101", "refused_total{class=\"stale\"} 0"] {
        assert!(metrics.lines().any(|found| found == format!("fleetwire_{line}")), "{line}: {metrics}");
    }
    assert!(metrics.contains("\nfleetwire_sessions_ended_for_refusals_total 1\n"), "{metrics}");
    let told = log.text();
    let told: Vec<&str> = told.lines().filter(|line| line.contains("agent/pi")).collect();
    for (what, times) in [("refused what it sent", 1), ("closing: more than 100 refused", 1)] {
        assert_eq!(told.iter().filter(|line| line.contains(what)).count(), times, "{what}: {told:?}");
    }
}

#[tokio::test]
async fn many_large_jobs_at_once_are_all_accepted() {
    // Together more than one write of the journal may hold.
    const LINKS: usize = 8;
    const JOBS: usize = 80;
    let cluster = Cluster::start().await;
    let mut links = Vec::new();
    for _ in 0..LINKS {
        links.push(open(&cluster.operator()).await);
    }
    for link in &links {
        let job = |number| submit(&large_job(&format!("large-{number}")));
        link.sender.send_many((0..JOBS).map(job)).unwrap();
    }
    for link in &mut links {
        let mut accepted = 0;
        while accepted < JOBS {
            accepted += received(link, fb::SchedulerMessage::JobSubmitted).await.unwrap();
        }
    }
    assert_eq!(cluster.client().await.cluster().await.unwrap().jobs as usize, LINKS * JOBS);
}

#[tokio::test]
async fn what_was_decided_before_a_stop_is_answered() {
    let mut cluster = Cluster::start().await;
    let (mut sent, mut answered) = (0, 0);
    for _ in 0..4 {
        let mut link = open(&cluster.operator()).await;
        let jobs: Vec<_> = (0..80).map(|number| submit(&large_job(&format!("job-{number}")))).collect();
        sent += jobs.len();
        link.sender.send_many(jobs).unwrap();
        // The first answer: more are on their way, or wait for the disk.
        answered += received(&mut link, fb::SchedulerMessage::JobSubmitted).await.unwrap();
        cluster.scheduler.stop();
        let (more, why) = until_closed(&mut link, fb::SchedulerMessage::JobSubmitted).await;
        assert!(matches!(why, LinkClosed::ByPeer { code: fb::ErrorCode::ShuttingDown, .. }), "{why}");
        answered += more;
        cluster.restart().await;
    }
    let accepted = cluster.client().await.cluster().await.unwrap().jobs as usize;
    assert_eq!(accepted, answered, "of {sent} jobs");
}

#[tokio::test]
async fn datagrams_that_mean_nothing_change_nothing() {
    let cluster = Cluster::start().await;
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    for length in [0_usize, 1, 20, 1_200, 9_000, 60_000] {
        for fill in [0_u8, 0x40, 0xc0, 0xff] {
            let _ = socket.send_to(&vec![fill; length], cluster.started.address);
        }
    }
    cluster.client().await.cluster().await.unwrap();
}
