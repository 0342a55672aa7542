//! The whole path between real processes: join, hello, submit, journal, assign, supervisor, result.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fleetwire_tests::{Cluster, example};

#[test]
fn a_command_runs_on_an_agent_that_joined() {
    let cluster = Cluster::with_agents(1);
    let output = cluster.cli(&["run", "--cpu", "100m", "--", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "out\n", "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("err\n"), "{output:?}");
    assert_eq!(output.status.code(), Some(3));

    assert_eq!(cluster.cli_ok(&["run", "--", "echo", "hello"]), "hello\n");
    assert_eq!(cluster.cli(&["run", "--", "no-such-program"]).status.code(), Some(127));
    assert_eq!(cluster.cli(&["run", "--", "sh", "-c", "kill -9 $$"]).status.code(), Some(137));
}

#[test]
fn a_gang_starts_together_on_agents_of_its_own_and_knows_where_they_are() {
    let mut cluster = Cluster::start();
    cluster.join_agent("a0", &["--advertise", "alpha.example"]);
    cluster.join_agent("a1", &[]);
    cluster.join_agent("a2", &["--advertise", "gamma.example"]);
    cluster.wait_for_agents(3);
    let ended = cluster.cli_json(&["submit", &example("gang.toml"), "--wait", "--json"]);
    assert_eq!(ended["exit_status"], 0, "{ended}");
    let tasks = ended["tasks"].as_array().unwrap();
    let addresses = [("a0", "alpha.example"), ("a1", "127.0.0.1"), ("a2", "gamma.example")];
    let address = |agent: &str| addresses.iter().find(|(name, _)| *name == agent).unwrap().1;
    let peers: Vec<&str> = tasks.iter().map(|task| address(task["agent"].as_str().unwrap())).collect();
    for (rank, task) in tasks.iter().enumerate() {
        assert_eq!((task["result"]["rank"].as_u64(), task["result"]["size"].as_u64()), (Some(rank as u64), Some(3)));
        assert_eq!(task["result"]["peers"], peers.join(","), "{ended}");
    }
    let mut agents = peers;
    agents.sort_unstable();
    agents.dedup();
    assert_eq!(agents.len(), 3, "each has an agent of its own");
}

#[test]
fn the_first_example_ends_with_its_results() {
    let cluster = Cluster::with_agents(3);
    let ended = cluster.cli_json(&["submit", &example("first.toml"), "--wait", "--json"]);
    assert_eq!(ended["exit_status"], 0, "{ended}");
    assert_eq!(ended["job"]["status"], "completed");
    let tasks = ended["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 6);
    let gettysburg = tasks.iter().find(|task| task["result"]["text"] == "gettysburg").expect("the address");
    assert_eq!(gettysburg["result"]["longest"], "proposition");
    assert_eq!(gettysburg["metrics"]["words"].as_f64(), gettysburg["result"]["words"].as_f64());
    assert!(tasks.iter().all(|task| task["agent"].as_str().is_some_and(|name| name.starts_with('a'))));

    // What a person would look at afterwards.
    let job = ended["job"]["job"].to_string();
    let log = cluster.cli_ok(&["logs", &format!("{job}.0.0")]);
    assert!(log.starts_with("alice: "), "{log}");
    let result = cluster.cli_ok(&["result", &format!("{job}.0.0")]);
    assert!(result.starts_with("{\"text\":\"alice\""), "{result}");
    assert!(cluster.cli_ok(&["tasks", &job]).contains("completed"));
    assert!(cluster.cli_ok(&["jobs"]).contains("first"));
    assert!(cluster.cli_ok(&["agent", "a0"]).contains("connected"));
}
