//! Stories of what a new agent finds in its slots.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use fleetwire_common::ids::{JobId, TaskId};

const ATTEMPT: AttemptId = AttemptId { task: TaskId { job: JobId(7), entry: 0, index: 0 }, attempt: 1 };

fn sh(script: &str) -> Arc<TaskSpec> {
    let arguments = vec!["-c".to_owned(), script.to_owned()];
    Arc::new(TaskSpec { command: "/bin/sh".to_owned(), arguments, ..TaskSpec::default() })
}

async fn next(runner: &mut Runner) -> News {
    tokio::time::timeout(Duration::from_secs(30), runner.next()).await.expect("no news came")
}

// §job-3
/// What runs under a number that the journal knows as another job's is stopped, its end is nobody's, and whose the number
/// is starts as soon as it is gone.
#[tokio::test]
async fn what_runs_under_a_number_that_is_another_jobs_here_is_stopped_and_its_end_is_not_told() {
    let folder = tempfile::tempdir().unwrap();
    let start = || Runner::start(ExecutorConfig::new(folder.path()), ClusterClock::from_wall()).unwrap();
    let mut runner = start();
    runner.spawn((ATTEMPT, JobKey(1)), sh("exec sleep 1000"), 0, None);
    let News::Started { attempt: ATTEMPT, .. } = next(&mut runner).await else { panic!("it starts first") };
    drop(runner);

    let mut runner = start();
    let found = runner.recover(&BTreeMap::from([(ATTEMPT, JobKey(2))]));
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(runner.running(), 1, "it takes its room until it is gone");
    runner.spawn((ATTEMPT, JobKey(2)), sh("exit 3"), 0, None);
    let end = loop {
        if let News::Ended { attempt: ATTEMPT, end, .. } = next(&mut runner).await {
            break end;
        }
    };
    assert_eq!((end.reason, end.exit_code), (fb::EndReason::Exited, 3));
    assert_eq!(runner.running(), 0);
}
