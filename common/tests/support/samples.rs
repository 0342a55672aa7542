//! One message of every type, every field filled: what the golden bytes of version 0.1 hold. When a
//! later version appends a field, it stays absent here; that version gets samples of its own.

use fleetwire_common::fb::{self, SchedulerMessageT as M};

/// Every message type of version 0.1, in the union's order.
pub fn all() -> Vec<(&'static str, M)> {
    let mut all = working();
    all.extend(sessions());
    all.extend(clients());
    all.sort_by_key(|(_, message)| message.scheduler_message_type());
    all
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn resources() -> Option<Box<fb::ResourceSpecT>> {
    Some(Box::new(fb::ResourceSpecT { cpu: 1_500, memory: 2_048, gpu: 1, storage: 10, ..Default::default() }))
}

fn receipt() -> Option<fb::ReceiptT> {
    Some(fb::Receipt::new(3, 1_000, &[0xab; 16]).unpack())
}

fn pairs() -> Option<Vec<fb::KeyValueT>> {
    Some(vec![fb::KeyValueT { key: text("zone"), value: text("roof") }])
}

fn working() -> Vec<(&'static str, M)> {
    let file = fb::FileT { path: text("in/a.txt"), data: Some(b"one two".to_vec()), executable: true };
    let assignment = fb::TaskAssignmentT {
        task_id: text("7.0.42"),
        agent_type: fb::AgentType::Crawler,
        resources: resources(),
        storage_backend: fb::StorageType::S3,
        timeout: 3_600,
        attempt: 2,
        incarnation: 3,
        executor: fb::Executor::Process,
        command: text("/bin/sh"),
        arguments: Some(vec!["-c".into(), "true".into()]),
        environment: pairs(),
        parameters: text("{\"x\":1}"),
        files: Some(vec![file]),
        priority: -3,
        deadline: 1_700_000_100_000,
        any_agent_type: false,
        receipt: receipt(),
        kill_grace_ms: 5_000,
        result_path: text("out.json"),
        ..Default::default()
    };
    let end = fb::AttemptEndT {
        reason: fb::EndReason::Signalled,
        exit_code: -1,
        signal: 9,
        message: text("killed"),
        result: Some(b"{}".to_vec()),
        usage: Some(Box::new(fb::ResourceUsageT { user_us: 1, system_us: 2, memory_peak_kb: 3, wall_us: 4 })),
        stdout_bytes: 5,
        stderr_bytes: 6,
        started_at: 7,
        ended_at: 8,
        ..Default::default()
    };
    let status = fb::StatusUpdateT {
        task_id: text("7.0.42"),
        status: fb::TaskStatus::Failed,
        progress: 0.75,
        metrics: Some(vec![fb::MetricT { name: text("accuracy"), value: 0.5 }]),
        attempt: 2,
        metric_ids: Some(vec![0, 1]),
        metric_values: Some(vec![1.25, -2.5]),
        metric_names: Some(vec![
            fb::MetricNameT { id: 0, name: text("loss") },
            fb::MetricNameT { id: 1, name: text("rate") },
        ]),
        end: Some(Box::new(end)),
        note: text("epoch 3 of 7"),
        ..Default::default()
    };
    let attempt = |task_id: Option<String>, attempt| fb::TaskAcceptanceT { task_id, attempt };
    vec![
        ("TaskAssignment", M::TaskAssignment(Box::new(assignment))),
        ("StatusUpdate", M::StatusUpdate(Box::new(status))),
        (
            "Heartbeat",
            M::Heartbeat(Box::new(fb::HeartbeatT {
                cpu: 250,
                memory: 512,
                gpu: 1,
                storage: 3,
                running: 2,
                answer: true,
                ..Default::default()
            })),
        ),
        ("TaskAcceptance", M::TaskAcceptance(Box::new(attempt(text("7.0.42"), 2)))),
        (
            "TaskRejection",
            M::TaskRejection(Box::new(fb::TaskRejectionT {
                task_id: text("7.0.42"),
                attempt: 2,
                code: fb::ErrorCode::DoesNotFit,
                message: text("memory: 64 MB free"),
                ..Default::default()
            })),
        ),
        (
            "TaskCancellation",
            M::TaskCancellation(Box::new(fb::TaskCancellationT {
                task_id: text("7.0.42"),
                attempt: 2,
                reason: fb::EndReason::Cancelled,
                ..Default::default()
            })),
        ),
    ]
}

fn sessions() -> Vec<(&'static str, M)> {
    let hello = fb::HelloT {
        nonce: Some(vec![1; 16]),
        minor: 0,
        features: 15,
        boot_id: Some(vec![2; 16]),
        process_start_id: Some(vec![3; 16]),
        receipt: receipt(),
        software: text("fleetwire-agent 0.1.0"),
        ..Default::default()
    };
    let welcome = fb::WelcomeT {
        nonce: Some(vec![4; 16]),
        peer_nonce: Some(vec![1; 16]),
        minor: 0,
        features: 15,
        cluster_time: 1_700_000_000_000_000,
        epoch: 7,
        epoch_key: Some(vec![5; 32]),
        incarnation: 3,
        receipt: receipt(),
        cluster: text("c-1"),
        software: text("fleetwire-scheduler 0.1.0"),
        ..Default::default()
    };
    let held = fb::AttemptReportT {
        task_id: text("7.0.42"),
        attempt: 2,
        status: fb::TaskStatus::Running,
        resources: resources(),
        ..Default::default()
    };
    let register = fb::RegisterT {
        capacity: resources(),
        labels: pairs(),
        agent_types: Some(vec![fb::AgentType::Rater, fb::AgentType::Trainer]),
        executors: Some(vec![fb::Executor::Process, fb::Executor::Noop]),
        data_id: Some(vec![6; 16]),
        attempts: Some(vec![held]),
        software: text("fleetwire-agent 0.1.0"),
        host: text("pi-1"),
        ..Default::default()
    };
    let answer = fb::AttemptAnswerT {
        task_id: text("7.0.42"),
        attempt: 2,
        verdict: fb::AttemptVerdict::Stop,
        ..Default::default()
    };
    let nack = fb::NackT {
        code: fb::ErrorCode::AttemptEnded,
        message: text("the attempt has ended"),
        details: text("{\"ended_at\":8}"),
        request: 9,
        task_id: text("7.0.42"),
        attempt: 2,
        stream: 4,
        sequence: 12,
        item: 3,
        retriable: true,
        ..Default::default()
    };
    let log_chunk = fb::LogChunkT {
        request: 9,
        task_id: text("7.0.42"),
        attempt: 2,
        stream: fb::LogStream::Stderr,
        offset: 100,
        data: Some(b"line\n".to_vec()),
        ended: true,
        dropped: 7,
        size: 105,
        ..Default::default()
    };
    vec![
        ("Hello", M::Hello(Box::new(hello))),
        ("Welcome", M::Welcome(Box::new(welcome))),
        ("Register", M::Register(Box::new(register))),
        (
            "Registered",
            M::Registered(Box::new(fb::RegisteredT {
                answers: Some(vec![answer]),
                heartbeat_interval_ms: 30_000,
                answer_every: 4,
                ..Default::default()
            })),
        ),
        ("Deregister", M::Deregister(Box::new(fb::DeregisterT { reason: text("moving"), ..Default::default() }))),
        (
            "Ack",
            M::Ack(Box::new(fb::AckT {
                request: 9,
                task_id: text("7.0.42"),
                attempt: 2,
                echo: 1_700_000_000_000,
                ..Default::default()
            })),
        ),
        ("Nack", M::Nack(Box::new(nack))),
        (
            "LogRequest",
            M::LogRequest(Box::new(fb::LogRequestT {
                request: 9,
                task_id: text("7.0.42"),
                attempt: 2,
                stream: fb::LogStream::Stderr,
                offset: 100,
                limit: 4_096,
                ..Default::default()
            })),
        ),
        ("LogChunk", M::LogChunk(Box::new(log_chunk))),
        (
            "Enroll",
            M::Enroll(Box::new(fb::EnrollT {
                name: text("pi-1"),
                role: fb::Role::Service,
                csr: Some(vec![7; 40]),
                ..Default::default()
            })),
        ),
        (
            "Enrolled",
            M::Enrolled(Box::new(fb::EnrolledT {
                certificate: Some(vec![8; 40]),
                authority: Some(vec![9; 40]),
                principal: text("spiffe://c-1/service/pi-1"),
                enrolment_key: Some(vec![10; 32]),
                ..Default::default()
            })),
        ),
    ]
}

fn clients() -> Vec<(&'static str, M)> {
    let page = fb::PageT {
        request: 9,
        cursor: 100,
        jobs: Some(vec![fb::JobSummaryT {
            job: 7,
            name: text("first"),
            counts: Some(Box::new(fb::TaskCountsT {
                pending: 1,
                assigned: 2,
                running: 3,
                completed: 4,
                failed: 5,
                cancelled: 6,
                ..Default::default()
            })),
            submitted_at: 1,
            ended_at: 2,
            owner: text("operator/ann"),
            version: 3,
            tasks: Some(vec![fb::TaskSpecSummaryT { name: text("train"), count: 4, array: true }]),
            progress: 0.5,
            ..Default::default()
        }]),
        tasks: Some(vec![fb::TaskSummaryT {
            task_id: text("7.0.42"),
            name: text("train"),
            status: fb::TaskStatus::Lost,
            attempt: 2,
            agent: text("pi-1"),
            progress: 0.25,
            note: text("epoch 3"),
            metrics: Some(vec![fb::MetricT { name: text("loss"), value: 0.125 }]),
            end: None,
            failures: 1,
            losses: 2,
            retry_at: 3,
            suspect: true,
            ..Default::default()
        }]),
        agents: Some(vec![fb::AgentSummaryT {
            name: text("pi-1"),
            connected: true,
            capacity: resources(),
            free: resources(),
            labels: pairs(),
            agent_types: Some(vec![fb::AgentType::Labeller]),
            running: 1,
            last_heard: 2,
            host: text("pi"),
            software: text("fleetwire-agent 0.1.0"),
            usage: resources(),
            attempts: None,
            ..Default::default()
        }]),
        explanation: Some(Box::new(fb::ExplanationT {
            task_id: text("7.0.42"),
            status: fb::TaskStatus::Pending,
            summary: text("no agent fits"),
            obstacles: Some(vec![fb::ObstacleT { reason: text("memory"), agents: 3, example: text("pi-1") }]),
            ..Default::default()
        })),
        cluster: Some(Box::new(fb::ClusterSummaryT {
            cluster: text("c-1"),
            incarnation: 3,
            position: 1_000,
            agents: 4,
            agents_connected: 3,
            jobs: 2,
            software: text("fleetwire-scheduler 0.1.0"),
            ..Default::default()
        })),
        ..Default::default()
    };
    vec![
        (
            "SubmitJob",
            M::SubmitJob(Box::new(fb::SubmitJobT {
                request: 9,
                submit_id: Some(vec![11; 16]),
                job: Some(vec![12; 64]),
                ..Default::default()
            })),
        ),
        (
            "JobSubmitted",
            M::JobSubmitted(Box::new(fb::JobSubmittedT { request: 9, job: 7, repeated: true, ..Default::default() })),
        ),
        (
            "CancelWork",
            M::CancelWork(Box::new(fb::CancelWorkT {
                request: 9,
                job: 7,
                task_id: text("7.0.42"),
                ..Default::default()
            })),
        ),
        (
            "CreateToken",
            M::CreateToken(Box::new(fb::CreateTokenT {
                request: 9,
                role: fb::Role::Operator,
                uses: 5,
                expires_s: 60,
                ..Default::default()
            })),
        ),
        (
            "TokenCreated",
            M::TokenCreated(Box::new(fb::TokenCreatedT { request: 9, token: text("fwj1-AAAA"), ..Default::default() })),
        ),
        (
            "Query",
            M::Query(Box::new(fb::QueryT {
                request: 9,
                kind: fb::QueryKind::Tasks,
                job: 7,
                task_id: text("7.0.42"),
                agent: text("pi-1"),
                cursor: 100,
                limit: 50,
                version: 3,
                wait_ms: 1_000,
                ..Default::default()
            })),
        ),
        ("Page", M::Page(Box::new(page))),
        (
            "ChangeAgent",
            M::ChangeAgent(Box::new(fb::ChangeAgentT {
                request: 9,
                agent: text("pi-1"),
                action: fb::AgentAction::Drain,
                within_ms: 600_000,
                reason: text("a new disk"),
                ..Default::default()
            })),
        ),
        ("PlanJob", M::PlanJob(Box::new(fb::PlanJobT { request: 11, job: Some(vec![1, 2, 3, 4]) }))),
        (
            "SetSchedule",
            M::SetSchedule(Box::new(fb::SetScheduleT { request: 12, schedule: Some(Box::new(schedule())) })),
        ),
        (
            "ChangeSchedule",
            M::ChangeSchedule(Box::new(fb::ChangeScheduleT {
                request: 13,
                name: text("night"),
                action: fb::ScheduleAction::Pause,
            })),
        ),
        ("SetPolicy", M::SetPolicy(Box::new(fb::SetPolicyT { request: 10, policy: Some(Box::new(cluster_policy())) }))),
    ]
}

/// A job that runs at night.
pub fn schedule() -> fb::ScheduleT {
    fb::ScheduleT {
        name: text("night"),
        cron: text("30 3 * * 1-5"),
        time_zone: text("Europe/Amsterdam"),
        overlap: fb::Overlap::Replace,
        catch_up_ms: 600_000,
        job: Some(vec![1, 2, 3, 4]),
    }
}

/// A policy with two queues.
pub fn cluster_policy() -> fb::ClusterPolicyT {
    let quota = fb::QuotaT { cpu: 64_000, gpu: 0, ..Default::default() };
    let rule = |name: &str, weight| fb::QueueRuleT { name: text(name), weight, ..Default::default() };
    let research = fb::QueueRuleT { quota: Some(Box::new(quota)), priority_max: 10, ..rule("research", 3) };
    let queues = Some(vec![rule("default", 1), research]);
    fb::ClusterPolicyT { queues, ageing_every_ms: 600_000, ageing_most: 20, ..Default::default() }
}
