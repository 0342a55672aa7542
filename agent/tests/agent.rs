//! Stories of a real agent process and a scheduler that does what the story says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use fleetwire_common::{fb, message::Message};
use rustix::process::Signal;
use support::*;

/// A joined and registered agent.
async fn joined(scheduler: &mut Scheduler, data: &std::path::Path) -> (AgentProcess, Peer, fb::RegisterT) {
    let agent =
        AgentProcess::start(data, &["--join", &scheduler.token().to_text(), "--name", "pi", "--label", "zone=a"]);
    scheduler.let_in(None).await;
    let (peer, register) = scheduler.registered(500).await;
    (agent, peer, register)
}

/// As a scheduler does whose journal is a backup from before the end was settled.
#[tokio::test]
async fn an_attempt_that_is_sent_again_after_it_was_settled_ends_as_it_did() {
    let (mut scheduler, data) = (Scheduler::new().await, tempfile::tempdir().unwrap());
    let (_agent, mut peer, _) = joined(&mut scheduler, data.path()).await;
    let (a, ledger) = (id(3, 1), data.path().join("ledger"));
    let script = format!("echo ran >>{}; echo 7 >\"$FLEETWIRE_RESULT\"", ledger.display());
    for _ in 0..2 {
        peer.assign(&scheduler, a, sh(&script));
        let (status, end) = peer.ended(a).await;
        assert_eq!((status, end.result.as_deref()), (fb::TaskStatus::Completed, Some(&b"7\n"[..])));
        peer.ack(a);
    }
    assert_eq!(std::fs::read_to_string(ledger).unwrap(), "ran\n", "it ran again although its end is known");
}

#[tokio::test]
async fn an_agent_joins_registers_and_runs_a_task() {
    let (mut scheduler, data) = (Scheduler::new().await, tempfile::tempdir().unwrap());
    let (_agent, mut peer, register) = joined(&mut scheduler, data.path()).await;
    assert_eq!(register.capacity.unwrap().storage, 10);
    assert_eq!(register.labels.unwrap()[0].key.as_deref(), Some("zone"));
    assert_eq!(register.agent_types.unwrap().len(), 5);

    let a = id(3, 1);
    let script = "cat in/a.txt; echo \" $PLACE $FLEETWIRE_INDEX\"; echo oops >&2; \
                  echo 'progress 0.5' >&$FLEETWIRE_REPORT_FD; echo 'metric loss 0.25' >&$FLEETWIRE_REPORT_FD; \
                  printf '{\"ok\":true}' > \"$FLEETWIRE_RESULT\"";
    peer.assign(&scheduler, a, sh(script));
    peer.expect(|said| matches!(said, Said::Accepted(id) if id == a).then_some(())).await;
    peer.running(a).await;
    let before = scheduler.clock.now().as_ms();
    let (status, end) = peer.ended(a).await;
    assert_eq!((status, end.reason, end.exit_code), (fb::TaskStatus::Completed, fb::EndReason::Exited, 0));
    assert_eq!(end.result.as_deref(), Some(&b"{\"ok\":true}"[..]));
    assert_eq!((end.stdout_bytes, end.stderr_bytes), (13, 5));
    assert!(end.ended_at_ms.abs_diff(before) < 5_000, "{} is cluster time", end.ended_at_ms);

    let request =
        fb::LogRequestT { request: 9, task_id: Some(a.task.to_string()), attempt: 1, limit: 100, ..Default::default() };
    peer.send(Message::Rare(fb::SchedulerMessageT::LogRequest(Box::new(request))));
    let log = peer
        .expect(|said| match said {
            Said::Log(log) => Some(log),
            _ => None,
        })
        .await;
    assert_eq!((log.request, log.ended, log.data.unwrap()), (9, true, b"hello here 3\n".to_vec()));
    peer.ack(a);

    let (bytes, memory) = peer
        .expect(|said| match said {
            Said::Heartbeat { running: 0, frame_bytes, memory } => Some((frame_bytes, memory)),
            _ => None,
        })
        .await;
    assert!(bytes <= 192, "a heartbeat's frame has {bytes} bytes");
    assert!(memory > 0);
}

#[tokio::test]
async fn progress_and_metrics_arrive_while_a_task_runs() {
    let (mut scheduler, data) = (Scheduler::new().await, tempfile::tempdir().unwrap());
    let (_agent, mut peer, _) = joined(&mut scheduler, data.path()).await;
    let a = id(0, 1);
    let script = "echo 'progress 0.25' >&$FLEETWIRE_REPORT_FD; echo 'metric loss 0.5' >&$FLEETWIRE_REPORT_FD; \
                  echo 'progress nan' >&$FLEETWIRE_REPORT_FD; sleep 30";
    peer.assign(&scheduler, a, sh(script));
    peer.expect(|said| match said {
        Said::Status { progress: 0.25, metrics, .. } => (metrics == [("loss".to_owned(), 0.5)]).then_some(()),
        _ => None,
    })
    .await;
    peer.send(Message::Cancellation(a, fb::EndReason::Rival));
    let (status, end) = peer.ended(a).await;
    assert_eq!((status, end.reason), (fb::TaskStatus::Cancelled, fb::EndReason::Rival));
}

/// No scheduler says such a thing: a later one, or one with a fault, may.
#[tokio::test]
async fn what_is_refused_of_a_batch_is_answered_by_its_place_and_the_session_goes_on() {
    let (mut scheduler, data) = (Scheduler::new().await, tempfile::tempdir().unwrap());
    let (_agent, mut peer, _) = joined(&mut scheduler, data.path()).await;
    // A first frame, so that the next is not the one of number 0.
    peer.assign(&scheduler, id(2, 1), sh("exit 3"));
    peer.ended(id(2, 1)).await;
    let (a, task_id) = (id(3, 1), Some(id(3, 1).task.to_string()));
    let update = fb::StatusUpdateT { task_id, attempt: 1, progress: f32::NAN, ..Default::default() };
    let update = || Message::Rare(fb::SchedulerMessageT::StatusUpdate(Box::new(update.clone())));
    peer.send_many(vec![update(), update(), update()]);
    let mut places = Vec::new();
    while places.len() < 3 {
        let nack = peer
            .expect(|said| match said {
                Said::Nack(nack) => Some(nack),
                _ => None,
            })
            .await;
        assert_eq!((nack.code, nack.stream), (fb::ErrorCode::Validation, 0), "{nack:?}");
        places.push((nack.sequence, nack.item));
    }
    let sequence = places[0].0;
    assert!(sequence > 0);
    assert_eq!(places, [0, 1, 2].map(|item| (sequence, item)));
    peer.assign(&scheduler, a, sh("exit 3"));
    assert_eq!(peer.ended(a).await.1.exit_code, 3);
}

#[tokio::test]
async fn a_result_outlives_the_scheduler_and_is_offered_until_it_is_taken() {
    let (mut scheduler, data) = (Scheduler::new().await, tempfile::tempdir().unwrap());
    let (mut agent, mut peer, _) = joined(&mut scheduler, data.path()).await;
    let a = id(0, 1);
    let flag = data.path().join("go");
    peer.assign(&scheduler, a, sh(&format!("while [ ! -e {} ]; do sleep 0.01; done; exit 3", flag.display())));
    peer.running(a).await;
    drop(peer);
    scheduler.vanish().await;
    std::fs::write(&flag, "").unwrap();
    scheduler.listen().await;
    for _ in 0..2 {
        // Not acknowledged: it comes again in the next session, also after the agent was killed.
        let (mut peer, register) = scheduler.registered(500).await;
        let attempts = register.attempts.unwrap();
        assert_eq!((attempts.len(), attempts[0].attempt), (1, 1));
        let (status, end) = peer.ended(a).await;
        assert_eq!((status, end.exit_code), (fb::TaskStatus::Failed, 3));
        agent.signal(Signal::KILL);
        agent.exited().await;
        agent = AgentProcess::start(data.path(), &[]);
    }
    let (mut peer, _) = scheduler.registered(500).await;
    peer.ended(a).await;
    peer.ack(a);
    peer.expect(|said| matches!(said, Said::Heartbeat { .. }).then_some(())).await;
    agent.signal(Signal::TERM);
    assert!(agent.exited().await.success());
    let _agent = AgentProcess::start(data.path(), &[]);
    let (_, hello, register) = scheduler.session().await;
    assert!(register.attempts.unwrap().is_empty(), "it was acknowledged");
    assert_eq!(hello.receipt.map(|proof| proof.receipt), Some(scheduler.receipt(5)), "the latest that was kept");
}

#[tokio::test]
async fn a_stopped_agent_says_goodbye_and_its_tasks_go_on() {
    let (mut scheduler, data) = (Scheduler::new().await, tempfile::tempdir().unwrap());
    let (mut agent, mut peer, _) = joined(&mut scheduler, data.path()).await;
    let a = id(0, 1);
    let flag = data.path().join("go");
    peer.assign(&scheduler, a, sh(&format!("while [ ! -e {} ]; do sleep 0.01; done; echo done", flag.display())));
    peer.running(a).await;
    agent.signal(Signal::TERM);
    peer.expect(|said| matches!(said, Said::Deregister).then_some(())).await;
    assert!(agent.exited().await.success());
    drop(peer);
    let _agent = AgentProcess::start(data.path(), &["--name", "other"]);
    let (mut peer, register) = scheduler.registered(500).await;
    assert_eq!(register.attempts.unwrap()[0].status, fb::TaskStatus::Running);
    std::fs::write(&flag, "").unwrap();
    let (status, end) = peer.ended(a).await;
    assert_eq!((status, end.stdout_bytes), (fb::TaskStatus::Completed, 5));
}

#[tokio::test]
async fn with_stop_tasks_nothing_is_left_running() {
    let (mut scheduler, data) = (Scheduler::new().await, tempfile::tempdir().unwrap());
    let token = scheduler.token().to_text();
    let mut agent = AgentProcess::start(data.path(), &["--join", &token, "--name", "pi", "--stop-tasks"]);
    scheduler.let_in(None).await;
    let (mut peer, _) = scheduler.registered(500).await;
    peer.assign(&scheduler, id(0, 1), sh("sleep 1000"));
    peer.running(id(0, 1)).await;
    agent.signal(Signal::INT);
    let (status, _) = peer.ended(id(0, 1)).await;
    assert_eq!(status, fb::TaskStatus::Cancelled);
    assert!(agent.exited().await.success());
}

#[tokio::test]
async fn what_cannot_run_is_refused_or_ends_with_its_reason() {
    let (mut scheduler, data) = (Scheduler::new().await, tempfile::tempdir().unwrap());
    let (_agent, mut peer, _) = joined(&mut scheduler, data.path()).await;
    let mut huge = sh("true");
    huge.resources.gpu = 60_000;
    peer.assign(&scheduler, id(0, 1), huge);
    let code = peer
        .expect(|said| match said {
            Said::Rejected(code) => Some(code),
            _ => None,
        })
        .await;
    assert_eq!(code, fb::ErrorCode::DoesNotFit);
    let mut missing = sh("true");
    missing.command = "/no/such/program".into();
    peer.assign(&scheduler, id(1, 1), missing);
    let (status, end) = peer.ended(id(1, 1)).await;
    assert_eq!((status, end.reason), (fb::TaskStatus::Failed, fb::EndReason::SpawnFailed));
    assert!(end.message.contains("/no/such/program"), "{}", end.message);
    let mut slow = sh("sleep 1000");
    slow.timeout_s = 1;
    peer.assign(&scheduler, id(2, 1), slow);
    let (status, end) = peer.ended(id(2, 1)).await;
    assert_eq!((status, end.reason), (fb::TaskStatus::TimedOut, fb::EndReason::RunTimeout));
}

#[tokio::test]
async fn more_attempts_than_slots_take_turns() {
    let (mut scheduler, data) = (Scheduler::new().await, tempfile::tempdir().unwrap());
    let token = scheduler.token().to_text();
    let _agent = AgentProcess::start(data.path(), &["--join", &token, "--name", "pi", "--slots", "2"]);
    scheduler.let_in(None).await;
    let (mut peer, _) = scheduler.registered(500).await;
    for index in 0..12 {
        peer.assign(&scheduler, id(index, 1), sh("sleep 0.01; exit 4"));
    }
    let mut ended = std::collections::BTreeSet::new();
    while ended.len() < 12 {
        let (attempt, end) = peer
            .expect(|said| match said {
                Said::Status { attempt, end: Some(end), .. } => Some((attempt, end)),
                _ => None,
            })
            .await;
        assert_eq!(end.exit_code, 4, "{}", end.message);
        peer.ack(attempt);
        ended.insert(attempt);
    }
}

#[tokio::test]
async fn a_refused_device_is_told_what_to_do_and_asks_again_with_the_same_key() {
    let (mut scheduler, data) = (Scheduler::new().await, tempfile::tempdir().unwrap());
    let token = scheduler.token().to_text();
    let arguments = || vec!["--join".to_owned(), token.clone(), "--name".to_owned(), "pi".to_owned()];
    let mut keys = Vec::new();
    for (code, expected) in [
        (fb::ErrorCode::TokenExpired, "fleetwire token create"),
        (fb::ErrorCode::NameTaken, "--name"),
        (fb::ErrorCode::TokenUsedUp, "fleetwire token create"),
    ] {
        let failing = tokio::spawn(failing(data.path().to_owned(), arguments()));
        keys.push(scheduler.let_in(Some(code)).await);
        let said = failing.await.unwrap();
        assert!(said.contains(expected), "{code:?}: {said}");
    }
    assert!(keys.iter().all(|key| *key == keys[0]), "the key is kept, so that a lost reply costs nothing");
}

#[tokio::test]
async fn a_start_that_cannot_work_says_why() {
    let (mut scheduler, data) = (Scheduler::new().await, tempfile::tempdir().unwrap());
    let said = failing(data.path().join("new"), vec![]).await;
    assert!(said.contains("--join TOKEN"), "{said}");

    let mut other = scheduler.token();
    other.authority_sha256 = [9; 32];
    let said = failing(data.path().join("new"), vec!["--join".into(), other.to_text()]).await;
    assert!(said.contains("authority"), "{said}");

    let mut operator = scheduler.token();
    operator.role = fb::Role::Operator;
    let said = failing(data.path().join("new"), vec!["--join".into(), operator.to_text()]).await;
    assert!(said.contains("--role agent"), "{said}");

    let folder = data.path().join("one");
    let (_agent, _peer, _) = joined(&mut scheduler, &folder).await;
    let said = failing(folder, vec![]).await;
    assert!(said.contains("in use by process"), "{said}");

    let foreign = data.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("thesis.tex"), "").unwrap();
    let said = failing(foreign, vec![]).await;
    assert!(said.contains("thesis.tex"), "{said}");

    let newer = data.path().join("newer");
    std::fs::create_dir(&newer).unwrap();
    std::fs::write(newer.join("version"), "99\n").unwrap();
    let said = failing(newer, vec![]).await;
    assert!(said.contains("version 99"), "{said}");
}

#[tokio::test]
async fn as_process_one_it_reaps_what_has_lost_its_parent() {
    let unshare = |command: &mut std::process::Command| {
        command.args(["--pid", "--fork", "--kill-child"]).stderr(std::process::Stdio::null()).status()
    };
    let allowed = unshare(std::process::Command::new("unshare").arg("--mount-proc").arg("true"));
    if !allowed.is_ok_and(|status| status.success()) {
        eprintln!("skipped: `unshare --pid` is not allowed here, which needs root");
        return;
    }
    let (scheduler, data) = (Scheduler::new().await, tempfile::tempdir().unwrap());
    // The shell becomes the agent, which never asked for that child.
    let script = "sleep 0.3 & exec \"$0\" --data \"$1\" --join \"$2\" --name pi";
    let mut outer = std::process::Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "sh", "-c", script, env!("CARGO_BIN_EXE_fleetwire-agent")])
        .arg(data.path())
        .arg(scheduler.token().to_text())
        .spawn()
        .unwrap();
    let children = |pid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
    };
    let name = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        let agent = children(outer.id()).into_iter().find(|pid| name(*pid).starts_with("fleetwire-agent"));
        if agent.is_some_and(|agent| children(agent).is_empty()) {
            break;
        }
        assert!(std::time::Instant::now() < until, "a process that ended is still there");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    outer.kill().unwrap();
    outer.wait().unwrap();
}
