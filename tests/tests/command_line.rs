//! The command line as people and programs use it, against real clusters.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fleetwire_tests::{Cluster, Process, binaries, example, wait_for};
use serde_json::Value;
use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

/// `fleetwire` as somebody without a scheduler on this machine.
fn stranger(home: &Path, arguments: &[&str]) -> Output {
    Command::new(binaries().join("fleetwire"))
        .args(arguments)
        .env_remove("FLEETWIRE_DATA")
        .env("FLEETWIRE_HOME", home)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn errors_say_what_is_wrong_and_what_to_do() {
    let cluster = Cluster::start();
    let nobody = stranger(&cluster.path("nobody"), &["jobs"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("no credentials") && text(&nobody.stderr).contains("fleetwire login TOKEN"));

    let file = cluster.job_file("typo.toml", "name = 'j'\n[[task]]\ncomand = ['true']\n");
    let typo = cluster.cli(&["submit", &file]);
    assert_eq!((typo.status.code(), text(&typo.stdout).as_str()), (Some(1), ""));
    let message = text(&typo.stderr);
    assert!(message.contains("typo.toml:3:1") && message.contains("did you mean `command`?"), "{message}");

    let unknown = cluster.cli(&["job", "99"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stderr).contains("there is no job 99"), "{unknown:?}");
    assert!(text(&unknown.stderr).contains("hint: `fleetwire jobs`"), "{unknown:?}");
    assert_eq!(cluster.cli(&["frobnicate"]).status.code(), Some(2));
    assert!(cluster.cli_ok(&["jobs"]).contains("no jobs yet"));
    assert!(cluster.cli_ok(&["agents"]).contains("fleetwire-agent --join"));
    assert!(cluster.cli_ok(&["completions", "bash"]).contains("fleetwire"));
    let metrics = cluster.cli_ok(&["metrics"]);
    assert!(metrics.contains("\nfleetwire_refused_total{class=\"signature\"} 0\n"), "{metrics}");
    assert!(metrics.contains("\nfleetwire_sessions "), "{metrics}");

    // A folder that somebody uses: the second scheduler says so and ends.
    let data = cluster.path("scheduler");
    let second = Command::new(binaries().join("fleetwire-scheduler"))
        .args(["--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"])
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("is in use by process"), "{}", text(&second.stderr));
}

#[test]
fn an_operator_on_another_machine_logs_in_once() {
    let cluster = Cluster::start();
    let home = cluster.path("anna");
    let token = cluster.cli_json(&["token", "create", "--role", "operator", "--json"]);
    let token = token["token"].as_str().unwrap();
    let login = stranger(&home, &["login", token, "--name", "anna"]);
    assert!(login.status.success(), "{}", text(&login.stderr));
    assert!(stranger(&home, &["jobs"]).status.success());

    let again = stranger(&home, &["login", token, "--name", "anna"]);
    assert!(text(&again.stderr).contains("there are credentials already"), "{}", text(&again.stderr));
    let bert = stranger(&cluster.path("bert"), &["login", token, "--name", "bert"]);
    assert_eq!(bert.status.code(), Some(1));
    assert!(text(&bert.stderr).contains("all were redeemed"), "{}", text(&bert.stderr));
    let damaged = stranger(&cluster.path("bert"), &["login", &token[..token.len() - 3]]);
    assert!(text(&damaged.stderr).contains("copy the whole line again"), "{}", text(&damaged.stderr));
}

#[test]
fn the_exit_status_is_that_of_the_first_task_that_did_not_complete() {
    let cluster = Cluster::with_agents(1);
    let failing = cluster.job_file(
        "failing.toml",
        "[[task]]\ncount = 4\ncpu = '100m'\nscript = 'exit $((FLEETWIRE_INDEX > 1 ? FLEETWIRE_INDEX + 2 : 0))'\n",
    );
    let waited = cluster.cli(&["submit", &failing, "--wait"]);
    assert_eq!(waited.status.code(), Some(4), "{}", text(&waited.stderr));
    let watched = cluster.cli(&["submit", &failing, "--watch"]);
    assert_eq!(watched.status.code(), Some(4));
    assert!(text(&watched.stdout).contains("exit status 5"), "{}", text(&watched.stdout));
    assert_eq!(cluster.cli(&["run", "--timeout", "1s", "--", "sleep", "60"]).status.code(), Some(124));

    let retried = cluster.cli_json(&["submit", &example("retry.toml"), "--wait", "--json"]);
    assert_eq!((&retried["exit_status"], &retried["tasks"][0]["failures"]), (&Value::from(0), &Value::from(2)));
    assert_eq!(retried["tasks"][0]["result"]["succeeded_at_attempt"], 3);
}

#[test]
fn a_plan_says_what_a_submit_would_come_to() {
    let cluster = Cluster::with_agents(2);
    let file = cluster.job_file(
        "planned.toml",
        "name = 'planned'\n[[task]]\nname = 'one'\ncommand = ['true']\ncpu = '10m'\ncount = 3\n\
         [[task]]\nname = 'two'\ncommand = ['true']\nafter = ['one']\n",
    );
    let shown = cluster.cli_ok(&["job", "plan", &file]);
    assert!(shown.contains("planned would be accepted: 4 tasks in 2 entries"), "{shown}");
    assert!(shown.contains("one would start at once") && shown.contains("it comes after `one`"), "{shown}");
    let plan = cluster.cli_json(&["job", "plan", &file, "--json"]);
    assert_eq!((&plan["accepted"], &plan["tasks"], &plan["agents"]), (&Value::from(true), &4.into(), &2.into()));
    assert_eq!((&plan["entries"][0]["now"], &plan["entries"][1]["now"]), (&Value::from(3), &Value::from(0)));
    assert!(cluster.cli_ok(&["jobs"]).contains("no jobs yet"), "nothing was taken");

    let hungry = cluster.job_file("hungry.toml", "[[task]]\ncommand = ['true']\ngpu = 7\n");
    let (planned, refused) = (cluster.cli(&["job", "plan", &hungry]), cluster.cli(&["submit", &hungry]));
    assert_eq!((planned.status.code(), &planned.stderr), (refused.status.code(), &refused.stderr));
    assert!(text(&planned.stdout).contains("would be refused: 1 task in 1 entry"), "{}", text(&planned.stdout));
    // A job as large as one may be travels as its submit does.
    std::fs::write(cluster.path("large"), vec![7; 1 << 20]).unwrap();
    let text = "[[task]]\ncommand = ['true']\n[[task.file]]\npath = 'large'\nsource = 'large'\n";
    let file = cluster.job_file("large.toml", text);
    assert!(cluster.cli_ok(&["job", "plan", &file]).contains("would be accepted"));
}

#[test]
fn a_schedule_is_set_paused_and_removed() {
    let mut cluster = Cluster::with_agents(1);
    assert!(cluster.cli_ok(&["schedule", "list"]).contains("no schedules yet"));
    let file = example("rota.toml");
    let submit = cluster.cli(&["submit", &file]);
    assert_eq!(submit.status.code(), Some(1));
    assert!(text(&submit.stderr).contains("fleetwire schedule set"), "{}", text(&submit.stderr));
    assert!(cluster.cli_ok(&["submit", "--now", "--wait", &file]).is_empty());
    assert!(cluster.cli_ok(&["schedule", "set", &file]).contains("30 3 * * 1-5 (Europe/Amsterdam), next in "));
    let list = cluster.cli_json(&["schedule", "list", "--json"]);
    assert_eq!((&list[0]["name"], &list[0]["overlap"]), (&Value::from("rota"), &Value::from("skip")));
    assert!(cluster.cli_ok(&["schedule", "pause", "rota"]).contains("rests"));
    cluster.kill_scheduler();
    cluster.start_scheduler();
    let list = cluster.cli_json(&["schedule", "list", "--json"]);
    assert_eq!((&list[0]["paused"], &list[0]["next_at_ms"]), (&Value::from(true), &Value::Null));
    cluster.cli_ok(&["schedule", "resume", "rota"]);
    cluster.cli_ok(&["schedule", "remove", "rota"]);
    let gone = cluster.cli(&["schedule", "remove", "rota"]);
    assert!(text(&gone.stderr).contains("`rota`"), "{}", text(&gone.stderr));

    let wrong = cluster.job_file("wrong.toml", "name = 'j'\ncron = '61 * * * *'\n[[task]]\ncommand = ['true']\n");
    let wrong = cluster.cli(&["schedule", "set", &wrong]);
    assert!(text(&wrong.stderr).contains("expected five fields"), "{}", text(&wrong.stderr));
    let never = cluster.cli(&["schedule", "set", &example("first.toml")]);
    assert!(text(&never.stderr).contains("does not say when it runs"), "{}", text(&never.stderr));
}

#[test]
fn a_policy_is_set_shown_and_outlives_its_scheduler() {
    let mut cluster = Cluster::start();
    let file = example("policies/queues.toml");
    assert!(cluster.cli_ok(&["policy", "check", &file]).contains("valid"));
    assert!(cluster.cli_ok(&["policy", "show"]).contains("nobody has set a policy"));
    cluster.cli_ok(&["policy", "set", &file]);
    let shown = cluster.cli_ok(&["policy", "show"]);
    cluster.kill_scheduler();
    cluster.start_scheduler();
    assert_eq!(
        cluster.cli_ok(&["policy", "show"]).lines().skip(1).collect::<Vec<_>>(),
        shown.lines().skip(1).collect::<Vec<_>>()
    );
    // What was shown is a file that sets the same.
    let again = cluster.job_file("again.toml", &shown);
    cluster.cli_ok(&["policy", "set", &again]);
    let queues = cluster.cli_json(&["queues", "--json"]);
    let names: Vec<_> = queues.as_array().unwrap().iter().map(|queue| queue["queue"].as_str().unwrap()).collect();
    assert!(names.contains(&"default") && names.len() > 1, "{names:?}");
    let wrong = cluster.job_file("wrong.toml", "[queues.default]\nweight = 0\n");
    let wrong = cluster.cli(&["policy", "set", &wrong]);
    assert!(text(&wrong.stderr).contains("wrong.toml:1"), "{}", text(&wrong.stderr));
}

#[test]
fn a_task_that_waits_is_explained_and_one_that_runs_is_stopped() {
    let cluster = Cluster::with_agents(1);
    let hungry = cluster.job_file("hungry.toml", "[[task]]\ncommand = ['true']\ngpu = 7\n");
    let refused = cluster.cli(&["submit", &hungry]);
    assert!(!refused.status.success() && text(&refused.stderr).contains("for gpu of 0 at most"), "{refused:?}");
    let hungry = cluster.job_file("patient.toml", "await_agents = true\n[[task]]\ncommand = ['true']\ngpu = 7\n");
    let job = cluster.cli_json(&["submit", &hungry, "--json"])["job"].to_string();
    let explained = cluster.cli_json(&["explain", &job, "--json"]);
    assert_eq!(explained["status"], "pending");
    assert_eq!(explained["obstacles"][0]["agents"], 1, "{explained}");
    let none = cluster.cli(&["result", &job]);
    assert!(text(&none.stderr).contains("has no result: it is pending"), "{}", text(&none.stderr));
    cluster.cli_ok(&["cancel", &job]);
    assert_eq!(cluster.cli_json(&["job", &job, "--json"])["status"], "cancelled");

    let long = cluster.job_file("long.toml", "[[task]]\nscript = 'echo begun; exec sleep 600'\nkill_grace = '1s'\n");
    let job = cluster.cli_json(&["submit", &long, "--json"])["job"].to_string();
    wait_for("its output", || text(&cluster.cli(&["logs", &job]).stdout).contains("begun").then_some(()));
    assert_eq!(cluster.cli_json(&["agent", "a0", "--json"])["attempts"][0]["status"], "running");
    cluster.cli_ok(&["cancel", &format!("{job}.0.0")]);
    wait_for("the task to stop", || {
        (cluster.cli_json(&["job", &job, "--json"])["status"] == "cancelled").then_some(())
    });
    wait_for("its room", || (cluster.cli_json(&["agent", "a0", "--json"])["running"] == 0).then_some(()));
}

#[test]
fn an_interrupted_run_stops_its_job() {
    let cluster = Cluster::with_agents(1);
    let data = cluster.path("scheduler");
    let arguments = ["--data", data.to_str().unwrap(), "run", "--", "sh", "-c", "echo begun; exec sleep 600"];
    let mut run = Process::start("fleetwire", &arguments, cluster.path("run.log"), None);
    wait_for("its output", || run.log().contains("begun").then_some(()));
    assert!(Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap().success());
    assert_eq!(run.wait().code(), Some(130), "{}", run.log());
    assert_eq!(cluster.cli_json(&["job", "1", "--json"])["status"], "cancelled");
}

#[test]
fn a_whole_cluster_in_one_process_runs_a_job_and_ends_as_it_did() {
    let folder = tempfile::tempdir().unwrap();
    let first = stranger(folder.path(), &["dev", &example("first.toml")]);
    let (out, said) = (text(&first.stdout), text(&first.stderr));
    assert!(first.status.success(), "{out}{said}");
    assert!(out.contains("moby-dick: 208 words") && out.contains("DIFFERENT"), "{out}");
    assert!(said.contains("completed in") && said.contains("6 of 6 tasks"), "{said}");

    let path = folder.path().join("seven.toml");
    std::fs::write(&path, "[[task]]\nscript = 'echo on purpose >&2; exit 7'\n").unwrap();
    let failed = stranger(folder.path(), &["dev", path.to_str().unwrap(), "--agents", "1"]);
    assert_eq!(failed.status.code(), Some(7));
    assert!(text(&failed.stdout).contains("on purpose"), "{failed:?}");
    let json = stranger(folder.path(), &["dev", path.to_str().unwrap(), "--agents", "1", "--json"]);
    let view: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&view["exit_status"], &view["tasks"][0]["end"]["exit_code"]), (&Value::from(7), &Value::from(7)));
}

#[test]
fn frames_and_schemas_are_looked_at_from_the_command_line() {
    let cluster = Cluster::start();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas");
    let golden = |name: &str| root.join("golden/0.1").join(name).display().to_string();
    let (update, key) = (golden("StatusUpdate.bin"), "42".repeat(32));

    let shown = cluster.cli_ok(&["wire", "decode", &update, "--key", &key]);
    assert!(shown.contains("StatusUpdate") && shown.contains("signature   right: key id 7"), "{shown}");
    let wrong =
        cluster.cli(&["wire", "validate", &update, "--key", &"43".repeat(32), "--arrived", "now", "--from", "viewer"]);
    assert_eq!(wrong.status.code(), Some(1));
    for rule in ["breaks 3 rules", "§open-3", "§fresh-1", "§role-1"] {
        assert!(text(&wrong.stdout).contains(rule), "{}", text(&wrong.stdout));
    }
    let right = ["--arrived", "1700000000000", "--from", "agent", "--whole"];
    let arguments = [&["wire", "validate", &update, "--key", &key][..], &right].concat();
    let right = cluster.cli_ok(&arguments);
    assert_eq!(right, "frame 1: 488 bytes, StatusUpdate: keeps to the rules\n");

    let json = cluster.job_file("frame.json", &cluster.cli_ok(&["wire", "decode", "--json", &golden("Packed.bin")]));
    let again = cluster.path("again.bin").display().to_string();
    let encode = ["wire", "encode", &json, "--key", &key, "--key-id", "7", "-o", &again];
    cluster.cli_ok(&encode);
    let rules = cluster.cli_ok(&["wire", "validate", &again, "--key", &key, "--key-id", "7"]);
    assert!(rules.contains("Deregister: keeps to the rules"), "{rules}");

    let heartbeat = cluster.job_file("beat.json", r#"{"message_type": "Heartbeat", "message": {"cpu": -1}}"#);
    let refused = cluster.cli(&["wire", "encode", &heartbeat, "--key", &key, "--key-id", "7", "--hex"]);
    assert!(
        text(&refused.stderr).contains("frame 1: message.cpu: expected an integer from 0"),
        "{}",
        text(&refused.stderr)
    );
    let empty = cluster.job_file("empty.bin", "");
    assert!(text(&cluster.cli(&["wire", "decode", &empty]).stderr).contains("it is empty: expected frames"));
    let short = cluster.cli(&["wire", "decode", &update, "--key", "42"]);
    assert!(short.status.code() == Some(2) && text(&short.stderr).contains("expected 64 hexadecimal digits"));

    let schemas = root.display().to_string();
    assert_eq!(cluster.cli_ok(&["wire", "diff-schema", &schemas, &schemas]), "The two say the same.\n");
    let changed = cluster.job_file("changed.fbs", "table Heartbeat { cpu:ulong (id: 0); }");
    let breaks = cluster.cli(&["wire", "diff-schema", &schemas, &changed]);
    assert_eq!(breaks.status.code(), Some(1));
    assert!(text(&breaks.stdout).contains("breaks Heartbeat.cpu: was uint, is ulong"), "{}", text(&breaks.stdout));
}

#[test]
fn a_scheduler_answers_pings_and_a_bench() {
    let cluster = Cluster::start();
    let ping = cluster.cli_ok(&["wire", "ping", "-n", "3", "--interval", "0"]);
    assert!(ping.contains("answer 3: ") && ping.contains("3 requests, all answered; round trip min "), "{ping}");
    let bench = cluster.cli_json(&["wire", "bench", "--peer", "--time", "200ms", "--json"]);
    assert!(bench["requests_per_s"].as_f64().unwrap() > 0.0 && bench["round_trip_us"]["p99"].as_f64().unwrap() > 0.0);
    let codec = cluster.cli_json(&["wire", "bench", "--time", "50ms", "--json"]);
    assert_eq!(codec.as_array().unwrap().len(), 7);
    let nobody = cluster.cli(&["wire", "ping", "127.0.0.1:9"]);
    assert!(text(&nobody.stderr).contains("is the scheduler running"), "{}", text(&nobody.stderr));
}
