//! Queries, held queries, explanations and logs.

use crate::harness::*;
use fleetwire_common::{
    fb::{self, ErrorCode as C, QueryKind as Q, TaskStatus as S},
    job::{Labels, TaskSpec},
    labels::{Texts, to_wire},
    message::Message,
    resources::Resources,
};
use std::time::Duration;

fn ask(kind: Q) -> fb::QueryT {
    fb::QueryT { kind, ..fb::QueryT::default() }
}

#[test]
fn every_answer_is_one_page_and_the_pages_make_up_the_whole() {
    let mut t = T::new();
    let jobs: Vec<u64> = (0..25).map(|_| t.submit(vec![task()])).collect();
    let mut seen = Vec::new();
    let mut cursor = 0;
    loop {
        let page = t.query(fb::QueryT { cursor, limit: 10, ..ask(Q::Jobs) }).unwrap();
        seen.extend(page.jobs.unwrap().into_iter().map(|job| job.job));
        cursor = page.cursor;
        if cursor == 0 {
            break;
        }
    }
    assert_eq!(seen, jobs.into_iter().rev().collect::<Vec<_>>());

    let second = TaskSpec { name: fleetwire_common::ids::Name::new("b").unwrap(), count: 7, ..task() };
    let job = t.submit(vec![TaskSpec { count: 3_000, ..task() }, second]);
    let (mut seen, mut cursor, mut pages) = (Vec::new(), 0, 0);
    loop {
        let page = t.query(fb::QueryT { cursor, limit: u32::MAX, job, ..ask(Q::Tasks) }).unwrap();
        seen.extend(page.tasks.unwrap().into_iter().map(|task| task.task_id.unwrap()));
        (cursor, pages) = (page.cursor, pages + 1);
        if cursor == 0 {
            break;
        }
    }
    let expected: Vec<_> = (0..3_000).map(|i| id(job, 0, i)).chain((0..7).map(|i| id(job, 1, i))).collect();
    assert_eq!(seen, expected.iter().map(|task| task.to_string()).collect::<Vec<_>>());
    assert!(pages >= 4);
    let beyond = t.query(fb::QueryT { cursor: u64::MAX, job, ..ask(Q::Tasks) }).unwrap();
    assert!(beyond.tasks.unwrap().is_empty() && beyond.cursor == 0);

    for name in ["a", "b", "c"] {
        t.agent(name).register();
    }
    let page = t.query(fb::QueryT { limit: 2, ..ask(Q::Agents) }).unwrap();
    assert_eq!((page.agents.unwrap().len(), page.cursor), (2, 3));
    let page = t.query(fb::QueryT { limit: 2, cursor: 3, ..ask(Q::Agents) }).unwrap();
    assert_eq!((page.agents.unwrap()[0].name.as_deref(), page.cursor), (Some("c"), 0));
    let page = t.query(fb::QueryT { cursor: u64::MAX, ..ask(Q::Agents) }).unwrap();
    assert!(page.agents.unwrap().is_empty());
    let cluster = t.query(ask(Q::Cluster)).unwrap().cluster.unwrap();
    assert_eq!((cluster.agents, cluster.agents_connected, cluster.jobs, cluster.incarnation), (3, 3, 26, 1));
}

#[test]
fn what_does_not_exist_is_said_to() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![task()]);
    let task_id = |task: &str| Some(task.to_string());
    assert_eq!(t.query(fb::QueryT { job: 9, ..ask(Q::Job) }), Err(C::UnknownJob));
    assert_eq!(t.query(fb::QueryT { job: 9, ..ask(Q::Tasks) }), Err(C::UnknownJob));
    for kind in [Q::Task, Q::Explain, Q::Result] {
        assert_eq!(t.query(fb::QueryT { task_id: task_id("9.0.0"), ..ask(kind) }), Err(C::UnknownTask));
        assert_eq!(t.query(fb::QueryT { task_id: task_id("nine"), ..ask(kind) }), Err(C::Validation));
        assert_eq!(t.query(ask(kind)), Err(C::Validation));
    }
    assert_eq!(t.query(fb::QueryT { agent: Some("b".into()), ..ask(Q::Agent) }), Err(C::UnknownAgent));
    assert_eq!(t.query(fb::QueryT { agent: Some("\u{1}".into()), ..ask(Q::Agent) }), Err(C::UnknownAgent));
    assert_eq!(t.query(ask(Q(99))), Err(C::Validation));
    let result = fb::QueryT { task_id: task_id(&id(job, 0, 0).to_string()), ..ask(Q::Result) };
    assert_eq!(t.query(result.clone()), Err(C::NoResult));
    t.agent("a").completes(attempt(job, 0, 1));
    assert_eq!(t.query(result), Err(C::NoResult));
}

#[test]
fn a_viewer_cannot_have_more_answered_than_its_allowance() {
    let closed_after = |query: &dyn Fn(u64) -> fb::QueryT| {
        let mut t = T::new();
        let job = t.submit(vec![TaskSpec { count: 2_000, ..task() }]);
        let viewer = t.connect(fb::Role::Viewer, "v");
        let mut asked = 0;
        while t.closed.is_empty() && asked < 50_000 {
            t.send(viewer, Message::Rare(fb::SchedulerMessageT::Query(Box::new(query(job)))));
            asked += 1;
        }
        assert_eq!(t.closed, [(viewer, C::RateLimited)]);
        asked
    };
    let page = |kind| move |job| fb::QueryT { job, limit: u32::MAX, ..ask(kind) };
    assert_eq!(closed_after(&page(Q::Tasks)), 50_000 / 101 + 1);
    assert_eq!(closed_after(&page(Q::Jobs)), 50_000 / 101 + 1);
    assert_eq!(closed_after(&page(Q::Agents)), 50_000 / 101 + 1);
    let explain = |job| fb::QueryT { task_id: Some(id(job, 0, 0).to_string()), ..ask(Q::Explain) };
    assert_eq!(closed_after(&explain), 501);
    // Short pages are cheap.
    let mut t = T::new();
    let viewer = t.connect(fb::Role::Viewer, "v");
    for _ in 0..10_000 {
        t.send(viewer, Message::Rare(fb::SchedulerMessageT::Query(Box::new(fb::QueryT { limit: 9, ..ask(Q::Jobs) }))));
    }
    assert!(t.closed.is_empty());
}

fn pages(messages: Vec<Message>) -> Vec<fb::JobSummaryT> {
    let page = |message| match message {
        Message::Rare(fb::SchedulerMessageT::Page(page)) => page.jobs.unwrap().pop(),
        _ => None,
    };
    messages.into_iter().filter_map(page).collect()
}

#[test]
fn a_held_query_is_answered_at_a_change_but_not_at_each() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { count: 2, ..task() }]);
    let version = t.job(job).version;
    let watcher = t.operator();
    let watch = |version| {
        let query = fb::QueryT { request: 1, job, version, wait_ms: 10_000, ..ask(Q::Job) };
        Message::Rare(fb::SchedulerMessageT::Query(Box::new(query)))
    };
    t.send(watcher, watch(version));
    t.pass(Duration::from_millis(30));
    t.agent("a").runs(attempt(job, 0, 1));
    assert!(t.inbox(watcher).is_empty());
    t.pass(Duration::from_millis(20));
    let news = pages(t.inbox(watcher));
    assert_eq!((news.len(), news[0].counts.as_ref().unwrap().running), (1, 1));
    // Nothing new: it waits until its time is over.
    t.send(watcher, watch(news[0].version));
    t.pass(Duration::from_millis(9_999));
    assert!(t.inbox(watcher).is_empty());
    t.pass(Duration::from_millis(1));
    assert_eq!(pages(t.inbox(watcher)).len(), 1);
    // Later than the pause, news are told at once; and the end is told at once always.
    t.send(watcher, watch(news[0].version));
    t.pass(Duration::from_millis(60));
    t.agent("a").reports(attempt(job, 0, 1), S::Running, 0.5);
    let news = pages(t.inbox(watcher));
    assert_eq!(news.len(), 1);
    t.send(watcher, watch(news[0].version));
    t.agent("a").completes(attempt(job, 0, 1));
    assert!(t.inbox(watcher).is_empty());
    t.agent("a").completes(attempt(job, 1, 1));
    let news = pages(t.inbox(watcher));
    assert!(news[0].ended_at > 0);
    // What has ended is told at once, whatever the version.
    t.send(watcher, watch(news[0].version));
    assert_eq!(pages(t.inbox(watcher)).len(), 1);
}

#[test]
fn held_queries_are_bounded_and_go_with_their_session() {
    let mut t = T::new();
    let job = t.submit(vec![task()]);
    let version = t.job(job).version;
    let watcher = t.connect(fb::Role::Viewer, "v");
    for request in 0..65 {
        let query = fb::QueryT { request, job, version, wait_ms: 10_000, ..ask(Q::Job) };
        t.send(watcher, Message::Rare(fb::SchedulerMessageT::Query(Box::new(query))));
    }
    assert_eq!(t.inbox(watcher).len(), 1);
    assert_eq!(t.scheduler.live().watches.len(), 64);
    t.disconnect(watcher);
    assert_eq!(t.scheduler.live().watches.len(), 0);
    t.pass(secs(20));
}

fn explain(t: &mut T, job: u64) -> (String, Vec<(u32, String)>) {
    let explanation =
        t.query(fb::QueryT { task_id: Some(id(job, 0, 0).to_string()), ..ask(Q::Explain) }).unwrap().explanation;
    let explanation = explanation.unwrap();
    let obstacles = explanation.obstacles.unwrap_or_default();
    let obstacles = obstacles.into_iter().map(|obstacle| (obstacle.agents, obstacle.reason.unwrap())).collect();
    (explanation.summary.unwrap(), obstacles)
}

#[test]
fn a_waiting_task_is_explained_agent_by_agent() {
    let mut t = T::new();
    let nobody = t.submit(vec![TaskSpec { priority: -1, ..task() }]);
    assert_eq!(explain(&mut t, nobody).0, "waits: no agent has registered");
    t.agent("a").kind(fb::AgentType::Trainer).register();
    t.agent("b").kind(fb::AgentType::Rater).register();
    t.agent("c").kind(fb::AgentType::Rater).register();
    t.agent("d").kind(fb::AgentType::Trainer).capacity(small()).register();
    t.agent("e").kind(fb::AgentType::Trainer).register().lose();
    t.submit(vec![TaskSpec { count: 12, ..task() }]);
    let gpu = Resources { cpu: 2_000, memory: 1, ..Resources::ZERO };
    let job = t.submit(vec![TaskSpec { agent_type: Some(fb::AgentType::Trainer), resources: gpu, ..task() }]);
    let (summary, obstacles) = explain(&mut t, job);
    assert_eq!(summary, "waits for an agent; 0 tasks are served before it");
    let expected = [
        (2, "it is not of kind trainer"),
        (1, "it is busy: cpu: has free 0 millicores, the task needs 2000 millicores"),
        (1, "it is not connected"),
        (1, "it is too small: cpu: has 1000 millicores, the task needs 2000 millicores"),
    ];
    assert_eq!(obstacles, expected.map(|(agents, reason)| (agents, reason.to_owned())));
    let behind = t.submit(vec![TaskSpec { priority: -5, ..task() }]);
    assert_eq!(explain(&mut t, behind).0, "waits for an agent; 1 tasks are served before it");
}

#[test]
fn other_tasks_are_explained_too() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { max_attempts: 2, ..task() }]);
    assert_eq!(explain(&mut t, job).0, "attempt 1 is on agent `a`");
    t.agent("a").fails(attempt(job, 0, 1));
    assert!(explain(&mut t, job).0.contains("more for its retry, after 1 failures"), "{:?}", explain(&mut t, job));
    t.pass(secs(2));
    t.cancel(job, None).unwrap();
    assert_eq!(explain(&mut t, job).0, "attempt 2 is on agent `a`; it was asked to stop");
    t.agent("a").completes(attempt(job, 0, 2));
    assert_eq!(explain(&mut t, job).0, "has ended: Completed (Exited)");
}

fn log_request(t: &mut T, session: fleetwire_common::ids::SessionId, task_id: &str, attempt: u32) {
    let request = fb::LogRequestT {
        request: 77,
        task_id: Some(task_id.into()),
        attempt,
        limit: u32::MAX,
        ..fb::LogRequestT::default()
    };
    t.send(session, Message::Rare(fb::SchedulerMessageT::LogRequest(Box::new(request))));
}

fn nack(t: &mut T, session: fleetwire_common::ids::SessionId) -> (C, u64) {
    match t.inbox(session).pop() {
        Some(Message::Rare(fb::SchedulerMessageT::Nack(nack))) => (nack.code, nack.request),
        other => panic!("{other:?}"),
    }
}

#[test]
fn logs_come_from_the_agent_that_has_them() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { max_attempts: 3, backoff_ms: 0, ..task() }]);
    let task = id(job, 0, 0).to_string();
    t.agent("a").fails(attempt(job, 0, 1));
    t.pass(secs(1));
    t.agent("a").inbox();
    let op = t.operator();
    log_request(&mut t, op, &task, 0);
    let Some(Message::Rare(fb::SchedulerMessageT::LogRequest(request))) = t.agent("a").inbox().pop() else {
        panic!("not forwarded");
    };
    assert_eq!((request.attempt, request.limit), (2, fleetwire_common::limits::LOG_CHUNK_BYTES_MAX));
    let chunk = fb::LogChunkT {
        request: request.request,
        task_id: request.task_id,
        attempt: request.attempt,
        data: Some(b"hi".to_vec()),
        ..fb::LogChunkT::default()
    };
    // Nor is it the log of another attempt or stream, or more than was asked for.
    let wrong = [
        fb::LogChunkT { attempt: 1, ..chunk.clone() },
        fb::LogChunkT { task_id: Some("9.0.0".into()), ..chunk.clone() },
        fb::LogChunkT { stream: fb::LogStream::Stderr, ..chunk.clone() },
        fb::LogChunkT { data: Some(vec![0; (64 << 10) + 1]), ..chunk.clone() },
    ];
    for chunk in wrong {
        let chunk = Message::Rare(fb::SchedulerMessageT::LogChunk(Box::new(chunk)));
        assert_eq!(t.agent("a").send(chunk).nacked(), C::Validation);
        assert!(t.inbox(op).is_empty());
    }
    let chunk = || Message::Rare(fb::SchedulerMessageT::LogChunk(Box::new(chunk.clone())));
    // Another agent cannot answer for it.
    t.agent("b").register().send(chunk());
    assert!(t.inbox(op).is_empty());
    t.agent("a").send(chunk());
    let answer = t.inbox(op).pop();
    let Some(Message::Rare(fb::SchedulerMessageT::LogChunk(answer))) = answer else { panic!("{answer:?}") };
    assert_eq!((answer.request, answer.data.as_deref()), (77, Some(&b"hi"[..])));
    t.agent("a").send(chunk());
    assert!(t.inbox(op).is_empty());

    // The agent's refusal goes to whoever asked; silence is answered in time.
    log_request(&mut t, op, &task, 2);
    let Some(Message::Rare(fb::SchedulerMessageT::LogRequest(request))) = t.agent("a").inbox().pop() else {
        panic!("not forwarded");
    };
    let refusal = fb::NackT { request: request.request, code: C::LogsGone, ..fb::NackT::default() };
    t.agent("a").send(Message::Rare(fb::SchedulerMessageT::Nack(Box::new(refusal))));
    assert_eq!(nack(&mut t, op), (C::LogsGone, 77));
    log_request(&mut t, op, &task, 1);
    t.pass(secs(16));
    assert_eq!(nack(&mut t, op), (C::MessageTimeout, 77));
    log_request(&mut t, op, &task, 9);
    assert_eq!(nack(&mut t, op).0, C::UnknownAttempt);
    log_request(&mut t, op, "9.0.0", 0);
    assert_eq!(nack(&mut t, op).0, C::UnknownTask);
    t.agent("a").lose();
    log_request(&mut t, op, &task, 0);
    assert_eq!(nack(&mut t, op).0, C::AgentUnreachable);
}

#[test]
fn logs_that_nobody_asked_for_count_as_a_flood() {
    let mut t = T::new();
    t.agent("a").register();
    let session = t.agent("a").session();
    let chunk = fb::LogChunkT { request: 5, data: Some(vec![0; 1_000]), ..fb::LogChunkT::default() };
    let mut sent = 0;
    while t.closed.is_empty() && sent < 60_000 {
        t.send(session, Message::Rare(fb::SchedulerMessageT::LogChunk(Box::new(chunk.clone()))));
        sent += 1;
    }
    assert_eq!((t.closed, sent < 50_001), (vec![(session, C::RateLimited)], true));
}

#[test]
fn requests_for_logs_are_bounded_and_go_with_their_session() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![task()]);
    let op = t.connect(fb::Role::Operator, "x");
    for _ in 0..17 {
        log_request(&mut t, op, &id(job, 0, 0).to_string(), 0);
    }
    assert_eq!(nack(&mut t, op).0, C::Busy);
    t.disconnect(op);
    assert!(t.scheduler.live().logs.is_empty());
}

#[test]
fn jobs_are_found_by_what_is_written_on_them() {
    let mut t = T::new();
    let texts = |pairs: &[(&str, &str)]| -> Texts {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    };
    let submit = |t: &mut T, labels: &[(&str, &str)]| {
        let annotations = texts(&[("ticket", "a reason")]);
        let spec = job(vec![task()]).labelled(Labels { labels: texts(labels), annotations }).unwrap();
        let submit = t.submit_id();
        t.submit_as(submit, &spec).unwrap().0
    };
    let first = submit(&mut t, &[("team", "vision"), ("stage", "eval")]);
    // More than are looked at for one page.
    for _ in 0..1_000 {
        submit(&mut t, &[("team", "sound")]);
    }
    let last = submit(&mut t, &[("team", "vision")]);
    t.restart();
    let find = |t: &mut T, wanted: &[(&str, &str)]| {
        let (mut found, mut cursor, mut pages) = (Vec::new(), 0, 0);
        loop {
            let labels = to_wire(&texts(wanted));
            let page = t.query(fb::QueryT { cursor, labels, limit: 100, ..ask(Q::Jobs) }).unwrap();
            found.extend(page.jobs.unwrap());
            (cursor, pages) = (page.cursor, pages + 1);
            if cursor == 0 {
                return (found.iter().map(|row| row.job).collect::<Vec<_>>(), pages);
            }
        }
    };
    assert_eq!(find(&mut t, &[("team", "vision")]), (vec![last, first], 2));
    assert_eq!(find(&mut t, &[("team", "vision"), ("stage", "eval")]), (vec![first], 2));
    assert_eq!(find(&mut t, &[("team", "vision"), ("stage", "train")]).0, [0; 0]);
    assert_eq!(find(&mut t, &[]).0.len(), 1_002);
    let one = t.job(first);
    assert_eq!((one.labels.unwrap().len(), one.annotations.unwrap().remove(0).value.unwrap()), (2, "a reason".into()));
    let wrong =
        |labels: &[(&str, &str)]| job(vec![task()]).labelled(Labels { labels: texts(labels), ..Labels::default() });
    assert!(
        wrong(&[("a b", "")]).is_err() && wrong(&[("a", &"x".repeat(257))]).is_err() && wrong(&[("a", "")]).is_ok()
    );
}
