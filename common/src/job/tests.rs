use super::*;

fn task() -> TaskSpec {
    TaskSpec { command: "true".into(), ..TaskSpec::default() }
}

fn job(tasks: Vec<TaskSpec>) -> Result<JobSpec, JobError> {
    JobSpec::new(Name::new("j").unwrap(), tasks, 300)
}

#[test]
fn a_job_survives_the_wire() {
    let full = TaskSpec {
        count: 1_000,
        array: true,
        agent_type: Some(fb::AgentType::Rater),
        resources: Resources { cpu: 500, memory: 64, gpu: 1, storage: 2 },
        custom: Custom::new([("fpga", 2), ("license/ansys", 4)]).unwrap(),
        arguments: vec!["a".into(), String::new()],
        environment: vec![("K".into(), "v".into())],
        parameters: "{\"x\":1}".into(),
        files: vec![FileSpec { path: "in/a.txt".into(), data: vec![1, 2, 3], executable: true }],
        priority: -3,
        constraints: vec![
            Constraint::new(Name::new("zone").unwrap(), fb::ConstraintOp::NotEqual, "b"),
            Constraint::one_of(Name::new("disk").unwrap(), vec!["ssd".into(), "nvme".into()]),
        ],
        timeout_s: 5,
        queue_timeout_s: 6,
        max_attempts: 7,
        max_losses: 8,
        backoff_ms: 9,
        kill_grace_ms: 10,
        result_path: "out.json".into(),
        whole_agent: true,
        distinct_agents: true,
        semaphores: vec![Semaphore { name: Name::new("db").unwrap(), max: 300, units: 2 }],
        gang: 100,
        gang_lost: fb::OnLost::Replace,
        prefer: vec![Preference {
            constraint: Constraint::new(Name::new("disk").unwrap(), fb::ConstraintOp::Exists, ""),
            weight: -7,
        }],
        ..task()
    };
    let terms = Terms { stop_on_disconnect_after_ms: 90_000, ..Terms::lost_after(300) };
    let other = TaskSpec { name: Name::new("other").unwrap(), ..task() };
    let job = JobSpec::new(Name::new("j").unwrap(), vec![full, other], terms).unwrap();
    assert_eq!(JobSpec::from_wire(&job.to_wire()).unwrap(), job);
    assert_eq!(job.task_count(), 1_001);
}

#[test]
fn what_cannot_run_is_refused() {
    assert_eq!(job(vec![]), Err(JobError::NoTasks));
    assert!(matches!(job(vec![task(), task()]), Err(JobError::DuplicateTask(_))));
    let wrong: [TaskSpec; 8] = [
        TaskSpec { count: 0, ..task() },
        TaskSpec { count: ARRAY_TASKS_MAX + 1, ..task() },
        TaskSpec { command: String::new(), ..task() },
        TaskSpec { max_attempts: 0, ..task() },
        TaskSpec { arguments: vec!["a\0b".into()], ..task() },
        TaskSpec { environment: vec![("A=B".into(), String::new())], ..task() },
        TaskSpec { result_path: "../x".into(), ..task() },
        TaskSpec { files: vec![FileSpec { path: "/etc/passwd".into(), data: vec![], executable: false }], ..task() },
    ];
    for task in wrong {
        assert!(job(vec![task.clone()]).is_err(), "{task:?}");
    }
}

#[test]
fn a_job_that_was_once_accepted_is_read_back_although_it_would_be_refused_now() {
    let zone = |value| Constraint::new(Name::new("zone").unwrap(), fb::ConstraintOp::Equal, value);
    let task = TaskSpec { constraints: vec![zone("eu"), zone("us")], ..task() };
    let old = JobSpec::accepted(Name::new("j").unwrap(), vec![task.clone()], Terms::default()).unwrap();
    assert_eq!(JobSpec::from_own_wire(&old.to_wire()).as_ref(), Ok(&old));
    assert!(matches!(JobSpec::from_wire(&old.to_wire()), Err(JobError::Constraints { .. })));
    assert!(matches!(job(vec![task]), Err(JobError::Constraints { .. })));
}

#[test]
fn hostile_bytes_are_refused() {
    assert!(JobSpec::from_wire(&[]).is_err());
    assert!(JobSpec::from_wire(&[0xff; 100]).is_err());
}
