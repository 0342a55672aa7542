//! Every kind of mistake, with the place and the words that a user sees.

use super::*;
use fleetwire_common::{
    fb,
    ids::Name,
    job::{Dependency, Semaphore, TaskSpec, Terms},
    resources::Resources,
};

fn read(text: &str) -> Result<JobSpec, JobFileError> {
    let files = |path: &Path| match path.to_str() {
        Some("a.txt") => Ok(b"alpha".to_vec()),
        _ => Err(io::Error::new(io::ErrorKind::NotFound, "no such file")),
    };
    parse(Path::new("job.toml"), text, files)
}

fn mistake(text: &str) -> Mistake {
    match read(text) {
        Err(JobFileError::Mistake(mistake)) => *mistake,
        other => panic!("expected a mistake in {text:?}, got {other:?}"),
    }
}

/// A mistake in a task's line, which is the fourth: its column and its message.
fn in_task(line: &str) -> (usize, String) {
    let mistake = mistake(&format!("name = 'j'\n[[task]]\ncommand = ['true']\n{line}\n"));
    assert_eq!(mistake.line, 4, "{mistake}");
    (mistake.column, mistake.kind.to_string())
}

#[test]
fn on_what_terms_a_job_runs() {
    let terms = |text: &str| read(&format!("name = 'j'\n{text}\n[[task]]\ncommand = ['true']\n")).unwrap().terms;
    assert_eq!(terms(""), Terms::default());
    let all = terms(
        "lost_after = '3m'\nstop_on_disconnect_after = '2m'\nretry_lost = false\nkeep = 'best_progress'\nexclusive = true\n\
         stop_after_failures = 3\ndeadline = '2h'\nstart_after = '10m'\nmax_running = 20\nawait_agents = true",
    );
    let expected = Terms {
        lost_after_s: 180,
        stop_on_disconnect_after_ms: 120_000,
        retry_lost: false,
        keep: fb::Keep::BestProgress,
        exclusive: true,
        stop_after_failures: 3,
        deadline_ms: 7_200_000,
        start_after_ms: 600_000,
        start_at_ms: 0,
        max_running: 20,
        await_agents: true,
    };
    assert_eq!(all, expected);
    let refused = |text: &str| {
        let mistake = mistake(&format!("name = 'j'\n{text}\n[[task]]\ncommand = ['true']\n"));
        (mistake.line, mistake.column, mistake.render(false))
    };
    for (text, line, column, says) in [
        ("keep = 'orginal'", 2, 8, "did you mean `original`?"),
        ("exclusiv = true", 2, 1, "did you mean `exclusive`?"),
        ("retry_lost = 'no'", 2, 14, "expected `true` or `false`"),
        ("stop_on_disconnect_after = '0s'", 2, 28, "whole seconds with a unit"),
        ("deadline = '1h'\nstart_after = '2h'", 2, 12, "lower start_after"),
        ("stop_after_failures = 0", 2, 23, "expected 1 to 4294967295"),
        ("stop_after_failures = '101%'", 2, 23, "or a part of them"),
        ("stop_after_failures = true", 2, 23, "or a part of them"),
        ("exclusive = true", 2, 13, "set stop_on_disconnect_after"),
        ("exclusive = true\nstop_on_disconnect_after = '295s'", 3, 28, "raise lost_after"),
    ] {
        let (found_line, found_column, rendered) = refused(text);
        assert_eq!((found_line, found_column), (line, column), "{rendered}");
        assert!(rendered.contains(says), "{rendered}");
    }
    for (moment, ms) in [
        ("2027-03-01T06:00:00Z", 1_803_880_800_000),
        ("2027-03-01T06:00:00.250+01:00", 1_803_877_200_250),
        ("2028-02-29 23:59:59-09:30", 1_835_515_799_000),
        ("1970-01-01T00:00:00Z", 0),
    ] {
        assert_eq!(terms(&format!("start_at = {moment}")).start_at_ms, ms, "{moment}");
    }
    for (moment, column, says) in [
        ("2027-03-01T06:00:00", 12, "with its offset from UTC"),
        ("2027-03-01", 12, "with its offset from UTC"),
        ("06:00:00", 12, "with its offset from UTC"),
        ("1969-12-31T00:00:00Z", 12, "no moment"),
        ("'2027-03-01T06:00:00Z'", 12, "and no quotes"),
        ("2027-03-01T06:00:00Z\nstart_after = '1h'", 1, "exclude each other"),
    ] {
        let (line, found, rendered) = refused(&format!("start_at = {moment}"));
        assert_eq!((line, found), (2, column), "{rendered}");
        assert!(rendered.contains(says), "{rendered}");
    }
    // Of all tasks of all entries, rounded up.
    let entries = "[[task]]\ncommand = ['true']\ncount = 250\n[[task]]\ncommand = ['true']\n";
    let part = |text: &str| read(&format!("name = 'j'\nstop_after_failures = '{text}'\n{entries}")).unwrap();
    let parts = ["1%", "2 %", "100%"].map(|text| part(text).terms.stop_after_failures);
    assert_eq!(parts, [3, 6, 251]);
}

#[test]
fn everything_that_a_job_can_say() {
    let job = read(
        r#"
name = "all"
lost_after = "2m30s"

[[task]]
name = "first"
count = 3
kind = "labeller"
command = ["wc", "-w", "a.txt"]
cpu = "500m"
memory = "64MB"
gpu = 1
storage = "10GB"
storage_backend = "s3"
env = { MODE = "fast", A = "b" }
parameters = { z = [1, 2.5, true], a = { b = "c" } }
priority = -7
constraints = ["zone = eu", "disk != slow", "gpu-model", "!old"]
timeout = "1h"
queue_timeout = "30s"
max_attempts = 4
max_losses = 2
max_running = 7
backoff = "250ms"
kill_grace = "1s"
result = "out/result.json"

[[task.file]]
source = "a.txt"

[[task.file]]
path = "bin/run"
content = "exit"
executable = true

[[task]]
script = "echo hello"
cpu = 1.5

[task.constraints]
zone = "us"
ssd = true
old = false

[[task]]
name = "nothing"
executor = "noop"
"#,
    )
    .unwrap();
    assert_eq!((job.name.as_str(), job.terms.lost_after_s, job.task_count()), ("all", 150, 5));

    let first = &job.tasks[0];
    assert!(first.array && first.count == 3);
    assert_eq!(first.agent_type, Some(fb::AgentType::Labeller));
    assert_eq!((first.command.as_str(), first.arguments.len()), ("wc", 2));
    assert_eq!(first.resources, Resources { cpu: 500, memory: 64, gpu: 1, storage: 10 });
    assert_eq!(first.storage_backend, fb::StorageType::S3);
    assert_eq!(first.environment, [("MODE".into(), "fast".into()), ("A".into(), "b".into())]);
    assert_eq!(first.parameters, r#"{"a":{"b":"c"},"z":[1,2.5,true]}"#);
    assert_eq!(first.priority, -7);
    let ops: Vec<_> = first.constraints.iter().map(|c| (c.label.as_str(), c.op, c.value.as_str())).collect();
    use fb::ConstraintOp as Op;
    assert_eq!(
        ops,
        [
            ("zone", Op::Equal, "eu"),
            ("disk", Op::NotEqual, "slow"),
            ("gpu-model", Op::Exists, ""),
            ("old", Op::NotExists, "")
        ]
    );
    assert_eq!((first.timeout_s, first.queue_timeout_s, first.max_attempts, first.max_losses), (3_600, 30, 4, 2));
    assert_eq!(first.max_running, 7);
    assert_eq!((first.backoff_ms, first.kill_grace_ms, first.result_path.as_str()), (250, 1_000, "out/result.json"));
    let files: Vec<_> = first.files.iter().map(|f| (f.path.as_str(), f.data.as_slice(), f.executable)).collect();
    assert_eq!(files, [("a.txt", &b"alpha"[..], false), ("bin/run", &b"exit"[..], true)]);

    let second = &job.tasks[1];
    assert_eq!((second.name.as_str(), second.count, second.array), ("task-2", 1, false));
    assert_eq!((second.command.as_str(), second.arguments.as_slice()), ("sh", &["-c".into(), "echo hello".into()][..]));
    assert_eq!(second.resources.cpu, 1_500);
    let ops: Vec<_> = second.constraints.iter().map(|c| (c.label.as_str(), c.op, c.value.as_str())).collect();
    assert_eq!(ops, [("zone", Op::Equal, "us"), ("ssd", Op::Exists, ""), ("old", Op::NotExists, "")]);
    assert_eq!(job.tasks[2].executor, fb::Executor::Noop);
}

#[test]
fn constraints_are_read_as_text_and_as_table_alike() {
    let of = |constraints: &str| {
        let job = read(&format!("[[task]]\ncommand = ['true']\nconstraints = {constraints}")).unwrap();
        job.tasks[0].constraints.clone()
    };
    let text = "['zone in [eu, us]', 'host matches edge-*', 'driver >= 535.2', 'driver<600', 'os=linux', 'a <= 1', 'b > 2', \
                'c!=x', 'in']";
    let table = "{ zone = ['eu', 'us'], host = { matches = 'edge-*' }, driver = { '>=' = '535.2', '<' = '600' }, \
                 os = { '=' = 'linux' }, a = { '<=' = '1' }, b = { '>' = '2' }, c = { '!=' = 'x' }, in = true }";
    assert_eq!(of(text), of(table));
    let words: Vec<String> = of(text).iter().map(ToString::to_string).collect();
    let expected = [
        "zone in [eu, us]",
        "host matches edge-*",
        "driver >= 535.2",
        "driver < 600",
        "os = linux",
        "a <= 1",
        "b > 2",
        "c != x",
        "in",
    ];
    assert_eq!(words, expected);
    assert_eq!(of("{ zone = { in = ['eu', 'us'] } }"), of("['zone in [eu,us]']"));
    assert_eq!(of("['!old', 'a == b']"), of("{ old = false, a = 'b' }"));
}

#[test]
fn custom_resources_are_read_by_name() {
    let job = read("[[task]]\ncommand = ['true']\n[task.resources]\nfpga = 1\n'license/ansys' = 2\nnone = 0").unwrap();
    assert_eq!(job.tasks[0].custom.to_string(), "1 fpga, 2 license/ansys");
    let (_, built_in) = in_task("resources = { gpu = 1 }");
    assert_eq!(built_in, "resource `gpu` has a key of its own: write `gpu = …` beside the others");
    assert!(in_task("resources = { 'a b' = 1 }").1.starts_with("resource `a b`: `a b` has the character ' '"));
    assert_eq!(in_task("resources = { fpga = -1 }").1, "`fpga` is -1: expected 0 to 1000000000");
    assert_eq!(
        in_task("resources = 3").1,
        "`resources` is a whole number: expected a table of whole numbers, such as { fpga = 1 }"
    );
}

#[test]
fn what_wants_to_be_alone_or_apart_says_so() {
    let job = read("[[task]]\ncommand = ['true']\nwhole_agent = true\ndistinct_agents = true").unwrap();
    assert!(job.tasks[0].whole_agent && job.tasks[0].distinct_agents);
    assert_eq!(in_task("whole_agent = 1").1, "`whole_agent` is a whole number: expected `true` or `false`");
}

#[test]
fn preferences_are_constraints_that_weigh() {
    let of = |lines: &str| read(&format!("[[task]]\ncommand = ['true']\n[[task.prefer]]\n{lines}"));
    let job = of("constraint = 'disk = ssd'\nweight = -5").unwrap();
    let one = &job.tasks[0].prefer[0];
    assert_eq!((one.constraint.to_string().as_str(), one.weight), ("disk = ssd", -5));
    let wrong = |lines: &str| of(lines).unwrap_err().to_string();
    assert!(wrong("constraint = 'disk = ssd'").contains("a preference has no `weight`"));
    assert!(wrong("constraint = 'disk = ssd'\nweight = 1001").contains("expected -1000 to 1000"));
    assert!(wrong("constraint = 'disk = ssd'\nweight = 0").contains("weight of a preference of task `task` is `0`"));
    assert!(wrong("constraint = 'v > new'\nweight = 1").contains("`new` is no version"));
}

#[test]
fn what_is_left_out_has_its_default() {
    let job = read("[[task]]\ncommand = ['true']").unwrap();
    assert_eq!((job.name.as_str(), job.terms.lost_after_s), ("job", 300));
    assert_eq!(*job.tasks[0], TaskSpec { command: "true".into(), ..TaskSpec::default() });
}

#[test]
fn a_mistake_is_shown_with_its_line_and_what_was_meant() {
    let mistake = mistake("name = \"j\"\n\n[[task]]\ncommand = [\"true\"]\n  memroy = \"64MB\"\n");
    assert_eq!((mistake.line, mistake.column), (5, 3));
    let expected = "\
error: unknown key `memroy` in a task
 --> job.toml:5:3
  |
5 |   memroy = \"64MB\"
  |   ^^^^^^ did you mean `memory`?
  |";
    assert!(mistake.to_string().starts_with(expected), "{mistake}");
    assert!(mistake.to_string().contains("help: the keys of a task: `name`, `count`"), "{mistake}");
}

#[test]
fn two_tasks_of_one_name_are_both_shown() {
    let text = "[[task]]\nname = 'a'\ncommand = ['x']\n[[task]]\nname = 'a'\ncommand = ['y']\n";
    let expected = "\
error: two tasks are called `a`
 --> job.toml:5:8
  |
2 | name = 'a'
  |        --- first used here
...
5 | name = 'a'
  |        ^^^ used again here
  |
  = help: names are unique in a job";
    assert_eq!(mistake(text).to_string(), expected);
}

#[test]
fn unknown_keys_are_refused_everywhere() {
    let top = mistake("nmae = 'j'\n[[task]]\ncommand = ['x']");
    assert_eq!((top.line, top.column, top.kind.to_string().as_str()), (1, 1, "unknown key `nmae` in the job"));
    let file = mistake("[[task]]\ncommand = ['x']\n[[task.file]]\npath = 'a'\ncontents = ''");
    assert_eq!(file.kind.to_string(), "unknown key `contents` in a file");
    assert!(file.to_string().contains("did you mean `content`?"));
    let far = mistake("[[task]]\ncommand = ['x']\nzzzz = 1");
    assert!(!far.to_string().contains("did you mean"), "{far}");
    // `[[tasks]]` is the likeliest slip of all.
    assert!(mistake("[[tasks]]\ncommand = ['x']").to_string().contains("did you mean `task`?"));
    // Two of them: the first in the text, not in the alphabet.
    assert_eq!(mistake("z = 1\na = 2").line, 1);
}

#[test]
fn what_must_be_there_is_asked_for() {
    let none = mistake("name = 'j'\n");
    assert_eq!(none.kind, MistakeKind::Missing { section: "the job", field: "[[task]]" });
    let text = "name = 'j'\n[[task]]\nname = 'idle'\n";
    assert_eq!((mistake(text).line, mistake(text).kind.to_string().as_str()), (2, "a task has no `command`"));
    assert!(mistake(text).to_string().contains("help: a task runs a program"));
    let file = mistake("[[task]]\ncommand = ['x']\n[[task.file]]\ncontent = ''");
    assert_eq!((file.line, file.kind.to_string().as_str()), (3, "a file has no `path`"));
    let file = mistake("[[task]]\ncommand = ['x']\n[[task.file]]\npath = 'a'");
    assert_eq!(file.kind.to_string(), "a file has no `content`");
    assert!(matches!(read(""), Err(JobFileError::Mistake(_))));
    assert!(
        matches!(read("task = []\n").unwrap_err(), JobFileError::Mistake(m) if m.kind == MistakeKind::Refused(JobError::NoTasks))
    );
}

#[test]
fn values_of_another_type_are_refused() {
    for (line, column, message) in [
        ("name = 7", 8, "`name` is a whole number: expected a text in quotes"),
        ("count = '7'", 9, "`count` is a text: expected a whole number"),
        ("count = 1.5", 9, "`count` is a fraction: expected a whole number"),
        ("gpu = true", 7, "`gpu` is a truth value: expected a whole number"),
        ("cpu = []", 7, "`cpu` is a list: expected cores such as 2 or 1.5, or millicores such as \"500m\""),
        ("memory = false", 10, "`memory` is a truth value: expected an amount with a unit, such as \"64MB\""),
        ("env = ['A=b']", 7, "`env` is a list: expected a table of texts, such as { MODE = \"fast\" }"),
        ("env = { THREADS = 8 }", 19, "`THREADS` is a whole number: expected a text in quotes"),
        ("parameters = 'x'", 14, "`parameters` is a text: expected a table, such as { rate = 0.1 }"),
        (
            "constraints = 'zone = eu'",
            15,
            "`constraints` is a text: expected a list such as [\"zone = eu\"] or a table such as { zone = \"eu\" }",
        ),
        (
            "constraints = { zone = 5 }",
            24,
            "`zone` is a whole number: expected a text, a list, a table such as { \">=\" = \"535.2\" }, or `true` or `false` for \
             a label that is there or not",
        ),
        ("file = 'a.txt'", 8, "`file` is a text: expected a list of tables, written as [[task.file]]"),
        ("file = ['a.txt']", 9, "`file` is a text: expected a table"),
        (
            "file = [{ path = 'a', content = '', executable = 1 }]",
            50,
            "`executable` is a whole number: expected `true` or `false`",
        ),
        ("priority = 2026-01-01", 12, "`priority` is a date or time: expected a whole number"),
    ] {
        assert_eq!(in_task(line), (column, message.to_owned()), "{line}");
    }
    let command = mistake("[[task]]\ncommand = 'wc -w a.txt'");
    assert_eq!(command.kind.to_string(), "`command` is a text: expected a list of texts, such as [\"sh\", \"run.sh\"]");
    assert!(command.to_string().contains("for a line of shell use `script"), "{command}");
    let word = mistake("[[task]]\ncommand = ['sleep', 5]");
    assert_eq!((word.line, word.column), (2, 21));
    let task = mistake("task = 5");
    assert_eq!(task.kind.to_string(), "`task` is a whole number: expected a list of tables, written as [[task]]");
    // One pair of brackets: a table, not a list of them.
    assert!(mistake("[task]\ncommand = ['x']").to_string().contains("written as [[task]]"));
}

#[test]
fn what_comes_after_what() {
    let dependencies = |text: &str| {
        let text = format!("name = 'j'\n[[task]]\nname = 'build'\ncommand = ['x']\n[[task]]\ncommand = ['x']\n{text}");
        read(&text).map(|job| job.tasks[1].after.clone())
    };
    let build = |on, each| Dependency { task: Name::new("build").unwrap(), on, each, input: String::new() };
    let on = |on| build(on, false);
    assert_eq!(dependencies("after = ['build']").unwrap(), [on(fb::DependencyOn::Success)]);
    assert_eq!(dependencies("[[task.after]]\ntask = 'build'\non = 'end'").unwrap(), [on(fb::DependencyOn::End)]);
    let inline = dependencies("after = [{ task = 'build', on = 'failure', each = true }]").unwrap();
    assert_eq!(inline, [build(fb::DependencyOn::Failure, true)]);
    for (text, line, column, says) in [
        ("after = ['biuld']", 7, 10, "there is no task `biuld`"),
        ("after = ['biuld']", 7, 10, "did you mean `build`?"),
        ("after = 'build'", 7, 9, "a list of tasks' names"),
        ("after = [{ task = 'build', onn = 'end' }]", 7, 28, "did you mean `on`?"),
        ("after = [{ task = 'build', on = 'fail' }]", 7, 33, "one of `success`, `failure`, `end`"),
        ("after = [{ on = 'end' }]", 7, 10, "a dependency has no `task`"),
        ("after = ['build', 'build']", 7, 9, "after `build` twice"),
        ("after = ['task-2']", 7, 9, "the tasks wait for each other: task-2 -> task-2"),
        (
            "count = 2\nafter = [{ task = 'build', each = true }]",
            8,
            9,
            "which has 1 tasks: expected as many as its own, 2",
        ),
    ] {
        let Err(JobFileError::Mistake(mistake)) = dependencies(text) else { panic!("{text} was taken") };
        let rendered = mistake.render(false);
        assert_eq!((mistake.line, mistake.column), (line, column), "{rendered}");
        assert!(rendered.contains(says), "{rendered}");
    }
    let cycle = mistake(
        "[[task]]\nname = 'a'\ncommand = ['x']\nafter = ['b']\n[[task]]\nname = 'b'\ncommand = ['x']\nafter = ['a']",
    );
    assert_eq!((cycle.line, cycle.kind.to_string().as_str()), (4, "the tasks wait for each other: a -> b -> a"));
}

#[test]
fn what_is_swept_over() {
    let job = |rest: &str| format!("name = 'j'\n[[task]]\ncommand = ['true']\n{rest}\n");
    let task = read(&job("[task.sweep]\nlr = [0.1, 0.01]\nname = ['a', 'b', 'c']")).unwrap().tasks[0].clone();
    assert_eq!((task.count, task.array), (6, true));
    let sweep = task.sweep.as_ref().unwrap();
    let of = |index| sweep.at(index).iter().map(|(axis, value)| format!("{}={}", axis.name, value.text)).collect();
    let found: Vec<Vec<String>> = [0, 1, 3].map(of).into();
    assert_eq!(found, [["lr=0.1", "name=a"], ["lr=0.1", "name=b"], ["lr=0.01", "name=a"]]);
    let zipped = read(&job("sweep = { mode = 'zip', a = [1, 2], b = [true, [3]] }")).unwrap();
    assert_eq!(zipped.task_count(), 2);
    for (rest, says) in [
        ("sweep = { mode = 'zip', a = [1, 2], b = [3] }", "lists of one length"),
        ("sweep = { mode = 'all', a = [1] }", "one of `product`, `zip`"),
        ("sweep = { a = 1 }", "a list of values"),
        ("sweep = { a = [] }", "at least one value"),
        ("sweep = {}", "at least one parameter"),
        ("sweep = { 1a = [1] }", "no digit first"),
        ("count = 2\nsweep = { a = [1, 2] }", "count"),
    ] {
        let rendered = mistake(&job(rest)).render(false);
        assert!(rendered.contains(says), "{rest}: {rendered}");
    }
    // More combinations than an array has tasks.
    let list = (0..1_001).map(|number| number.to_string()).collect::<Vec<_>>().join(",");
    let rendered = mistake(&job(&format!("sweep = {{ a = [{list}], b = [{list}] }}"))).render(false);
    assert!(rendered.contains("1002001"), "{}", &rendered[..200]);
}

#[test]
fn what_a_task_holds_of_a_name() {
    let of = |text: &str| {
        let text = format!(
            "name = 'j'\nlost_after = '2m'\nstop_on_disconnect_after = '90s'\n[[task]]\ncommand = ['true']\nsemaphores = {text}\n"
        );
        read(&text).map(|job| (job.terms.exclusive, job.tasks[0].semaphores.clone()))
    };
    let semaphore = |name: &str, max, units| Semaphore { name: Name::new(name).unwrap(), max, units };
    assert_eq!(of("['lock']").unwrap(), (true, vec![semaphore("lock", 1, 1)]));
    let both = vec![semaphore("db", 3, 1), semaphore("seats", 10, 4)];
    assert_eq!(of("[{ name = 'db', max = 3 }, { name = 'seats', max = 10, units = 4 }]").unwrap(), (true, both));
    for (text, says) in [
        ("['a', 'a']", "stands there twice"),
        ("[{ name = 'a', max = 2, units = 3 }]", "no more than there are"),
        ("[{ name = 'a', max = 0 }]", "expected 1 to"),
        ("[{ max = 1 }]", "has no `name`"),
        ("[{ name = 'a', most = 2 }]", "unknown key `most`"),
        ("'a'", "a list of names"),
        ("['a b']", "a name"),
    ] {
        let refused = of(text).unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
    }
    let differs = "name = 'j'\n[[task]]\ncommand = ['true']\nsemaphores = ['a']\n\
                   [[task]]\ncommand = ['true']\nsemaphores = [{ name = 'a', max = 2 }]\n";
    let mistake = mistake(differs);
    assert!(mistake.line == 7 && mistake.to_string().contains("1 in task `task`"), "{mistake}");
    let never = super::tests::mistake("name = 'j'\n[[task]]\ncommand = ['true']\nsemaphores = ['a']\n");
    assert!(never.to_string().contains("set stop_on_disconnect_after"), "{never}");
}

#[test]
fn what_starts_together() {
    let of = |text: &str| {
        read(&format!(
            "name = 'j'\nlost_after = '2m'\nstop_on_disconnect_after = '90s'\n[[task]]\ncommand = ['true']\n{text}\n"
        ))
    };
    let job = of("count = 8\ngang = 4\ngang_lost = 'replace'").unwrap();
    assert_eq!((job.tasks[0].gang, job.tasks[0].gang_lost), (4, fb::OnLost::Replace));
    assert!(job.terms.exclusive, "of a member there is one attempt at a time");
    assert_eq!(of("count = 2\ngang = 2").unwrap().tasks[0].gang_lost, fb::OnLost::Restart);
    for (text, says) in [
        ("count = 4\ngang = 1", "expected 2 to 256"),
        ("count = 4\ngang = 257", "expected 2 to 256"),
        ("count = 5\ngang = 2", "a multiple of the gang's 2 members"),
        ("count = 4\ngang = 2\nmax_running = 1", "expected at least 2"),
        ("count = 4\ngang = 2\nsemaphores = ['a']", "expected at least 2, because 2 members hold 1 each"),
        ("count = 4\ngang = 2\ngang_lost = 'wait'", "restart"),
        ("gang_lost = 'fail'", "set gang, or leave it out"),
    ] {
        let refused = of(text).unwrap_err().to_string();
        assert!(refused.contains(says), "{text}: {refused}");
    }
    let never = mistake("name = 'j'\n[[task]]\ncommand = ['true']\ncount = 2\ngang = 2\n");
    assert!(never.to_string().contains("a gang must be stopped by its agent"), "{never}");
}

#[test]
fn what_is_written_on_a_job() {
    let task = "[[task]]\ncommand = ['true']\n";
    let job = read(&format!(
        "name = 'j'\nlabels = {{ team = 'vision', stage = 'eval' }}\nannotations = {{ ticket = 'a b' }}\n{task}"
    ));
    let labels = job.unwrap().labels;
    let pairs: Vec<(&str, &str)> = labels.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(pairs, [("stage", "eval"), ("team", "vision")]);
    assert_eq!(labels.annotations["ticket"], "a b");
    for (wrong, says) in [
        ("labels = ['a']", "a table of texts"),
        ("labels = { a = 1 }", "a text in quotes"),
        ("labels = { \"a b\" = '' }", "name of a label"),
    ] {
        let rendered = mistake(&format!("name = 'j'\n{wrong}\n{task}")).render(false);
        assert!(rendered.contains(says), "{rendered}");
    }
}

#[test]
fn whose_results_a_task_wants() {
    let job = |rest: &str| {
        format!(
            "name = 'j'\n[[task]]\nname = 'build'\ncount = 2\ncommand = ['true']\n[[task]]\ncount = 2\ncommand = ['true']\n{rest}"
        )
    };
    let after = |rest: &str| read(&job(rest)).unwrap().tasks[1].after.clone();
    let of = |each, input: &str| Dependency {
        task: Name::new("build").unwrap(),
        on: fb::DependencyOn::Success,
        each,
        input: input.into(),
    };
    assert_eq!(after("[[task.input]]\ntask = 'build'\n"), [of(false, "build")]);
    let each = "after = [{ task = 'build', each = true }]\n[[task.input]]\ntask = 'build'\npath = 'in/b'\n";
    assert_eq!(after(each), [of(true, "in/b")]);
    for (rest, line, says) in [
        ("[[task.input]]\ntask = 'biuld'\n", 10, "did you mean `build`?"),
        ("[[task.input]]\npath = 'x'\n", 9, "`task`"),
        ("[[task.input]]\ntask = 'build'\npath = '../x'\n", 9, "a relative path"),
        ("[[task.input]]\ntask = 'build'\n[[task.file]]\npath = 'build/x'\ncontent = ''\n", 9, "another file's"),
        ("[[task.input]]\ntask = 'build'\n[[task.input]]\ntask = 'build'\n", 9, "another file's"),
        ("after = [{ task = 'build', on = 'end' }]\n[[task.input]]\ntask = 'build'\n", 9, "only `on` its success"),
    ] {
        let mistake = mistake(&job(rest));
        let rendered = mistake.render(false);
        assert!(rendered.contains(says), "{rendered}");
        assert_eq!(mistake.line, line, "{rendered}");
    }
}

#[test]
fn units_are_asked_for_and_checked() {
    for (line, column, message) in [
        (
            "memory = 64",
            10,
            "`64` is not an amount of memory: expected a number with a unit such as `64MB`, `1.5GB` or `512MiB`",
        ),
        (
            "memory = '64M'",
            10,
            "`64M` is not an amount of memory: expected a number with a unit such as `64MB`, `1.5GB` or `512MiB`",
        ),
        (
            "storage = '10 GBit'",
            11,
            "`10 GBit` is not an amount of storage: expected a number with a unit such as `500MB`, `10GB` or `1TB`",
        ),
        (
            "cpu = '500MB'",
            7,
            "`500MB` is not an amount of cpu: expected millicores such as `500m`, or cores such as `2` or `1.5`",
        ),
        (
            "cpu = -1",
            7,
            "`-1` is not an amount of cpu: expected millicores such as `500m`, or cores such as `2` or `1.5`",
        ),
        (
            "timeout = 30",
            11,
            "`30` is not a duration for `timeout`: expected whole seconds with a unit, such as \"30s\", \"5m\" or \"2h\"",
        ),
        (
            "timeout = '500ms'",
            11,
            "`500ms` is not a duration for `timeout`: expected whole seconds with a unit, such as \"30s\", \"5m\" or \"2h\"",
        ),
        (
            "backoff = '2 weeks'",
            11,
            "`2 weeks` is not a duration for `backoff`: expected a number with a unit, such as \"500ms\", \"30s\" or \"5m\", below 49 days",
        ),
        (
            "kill_grace = '90d'",
            14,
            "`90d` is not a duration for `kill_grace`: expected a number with a unit, such as \"500ms\", \"30s\" or \"5m\", below 49 days",
        ),
        (
            "queue_timeout = '0s'",
            17,
            "`0s` is not a duration for `queue_timeout`: expected whole seconds with a unit, such as \"30s\", \"5m\" or \"2h\"",
        ),
    ] {
        assert_eq!(in_task(line), (column, message.to_owned()), "{line}");
    }
    let lost = mistake("lost_after = 'soon'\n[[task]]\ncommand = ['x']");
    assert_eq!((lost.line, lost.column), (1, 14));
}

#[test]
fn impossible_requests_are_refused_where_they_are_made() {
    for (line, column, message) in [
        ("count = 0", 9, "`count` is 0: expected 1 to 1000000"),
        ("count = 99999999999999999999", 9, "`count` is 99999999999999999999: expected 1 to 1000000"),
        ("gpu = -1", 7, "`gpu` is -1: expected 0 to 65536"),
        ("priority = 200", 12, "`priority` is 200: expected -128 to 127"),
        ("max_attempts = 0", 16, "`max_attempts` is 0: expected 1 to 1000"),
        ("max_running = 0", 15, "`max_running` is 0: expected 1 to 4294967295"),
        ("max_losses = 1001", 14, "`max_losses` is 1001: expected 1 to 1000"),
        ("memory = '99999999TB'", 10, "`99999999TB` is more memory than the largest amount, 1000000000"),
        (
            "result = '/etc/passwd'",
            10,
            "path of task `task` is `/etc/passwd`: expected a relative path without `.`, `..` or empty components",
        ),
        (
            "file = [{ path = '../x', content = '' }]",
            8,
            "path of task `task` is `../x`: expected a relative path without `.`, `..` or empty components",
        ),
        ("env = { 'A=B' = '' }", 7, "environment variable of task `task` is `A=B`: expected a name without `=`"),
        ("parameters = { rate = nan }", 14, "the number nan cannot be a parameter: JSON has no such value"),
        ("script = 'true'", 1, "`script` and `command` exclude each other"),
        ("file = [{ path = 'a', source = 'a.txt', content = '' }]", 23, "`source` and `content` exclude each other"),
    ] {
        assert_eq!(in_task(line), (column, message.to_owned()), "{line}");
    }
    let empty = mistake("[[task]]\ncommand = []");
    assert_eq!((empty.line, empty.column), (2, 11));
    assert_eq!(empty.kind.to_string(), "command of task `task` is ``: expected a program and its arguments");
    let twice =
        mistake("[[task]]\ncommand = ['x']\nfile = [{ path = 'a', content = '' }, { path = 'a', content = '' }]");
    assert_eq!(twice.kind.to_string(), "file of task `task` is `a`: expected each path once");
}

#[test]
fn words_that_do_not_exist_name_the_nearest() {
    let kind = mistake("[[task]]\ncommand = ['x']\nkind = 'infrencer'");
    assert_eq!(kind.kind.to_string(), "`kind` is `infrencer`, which does not exist");
    assert!(kind.to_string().contains("did you mean `inferencer`?"), "{kind}");
    assert!(
        kind.to_string().contains("one of `any`, `trainer`, `inferencer`, `crawler`, `labeller`, `rater`"),
        "{kind}"
    );
    assert!(mistake("[[task]]\nexecutor = 'proces'").to_string().contains("did you mean `process`?"));
    assert!(mistake("[[task]]\ncommand = ['x']\nstorage_backend = 'S3'").to_string().contains("did you mean `s3`?"));
}

#[test]
fn names_and_constraints_are_checked() {
    assert_eq!(
        mistake("name = 'my job'\n[[task]]\ncommand = ['x']").kind.to_string(),
        "`my job` has the character ' ': a name has only a-z A-Z 0-9 . _ - and begins with a letter or digit"
    );
    assert_eq!(in_task("name = ''"), (8, "a name must not be empty".into()));
    assert_eq!(in_task("constraints = ['zone eu']"), (16, "`zone eu` is not a constraint".into()));
    assert_eq!(in_task("constraints = ['= eu']"), (16, "`= eu` is not a constraint".into()));
    for wrong in ["zone in eu", "zone in [eu,]", "zone in []", "zone matchesx", "! = 3", ">= 3", "zone ! eu"] {
        assert_eq!(in_task(&format!("constraints = ['{wrong}']")), (16, format!("`{wrong}` is not a constraint")));
    }
    let never = "constraints of task `task`: `zone = eu` and `zone = us` are never true at once: leave one of them out";
    assert_eq!(in_task("constraints = ['zone = eu', 'zone = us']"), (15, never.into()));
    assert!(in_task("constraints = { '-' = 'x' }").1.contains("character '-'"));
    // A job without a name is called after its file; if that is no name, it must say one.
    let nameless = parse(Path::new("übung.toml"), "[[task]]\ncommand = ['x']", |_| Ok(Vec::new())).unwrap_err();
    assert!(nameless.to_string().contains("the job has no `name`"), "{nameless}");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let missing = mistake("[[task]]\ncommand = ['x']\n[[task.file]]\nsource = 'b.txt'");
    assert_eq!((missing.line, missing.column), (4, 10));
    assert_eq!(missing.kind.to_string(), "cannot read `b.txt`: no such file");

    let folder = tempfile::tempdir().unwrap();
    let gone = load(&folder.path().join("gone.toml")).unwrap_err();
    assert!(gone.to_string().starts_with("cannot read the file `"), "{gone}");
    let path = folder.path().join("job.toml");
    fs::write(&path, b"name = 'j'\n# \xff\n").unwrap();
    let JobFileError::NotUtf8 { line: 2, .. } = load(&path).unwrap_err() else { panic!("expected the line") };
    fs::write(&path, "[[task]]\ncommand = ['x']\n[[task.file]]\nsource = 'big'").unwrap();
    fs::write(folder.path().join("big"), vec![0; FILES_BYTES_MAX + 1]).unwrap();
    assert!(load(&path).unwrap_err().to_string().contains("it has more than 1048576 bytes"));
    // Each is small enough, together they are not: the job says so, at the task that carries them.
    fs::write(folder.path().join("big"), vec![0; FILES_BYTES_MAX / 2 + 1]).unwrap();
    let twice = "[[task]]\ncommand = ['x']\n[[task.file]]\nsource = 'big'\n[[task.file]]\nsource = 'big'\npath = 'b'";
    fs::write(&path, twice).unwrap();
    assert!(load(&path).unwrap_err().to_string().contains("bytes of all files"));
    fs::create_dir(folder.path().join("d")).unwrap();
    assert!(load(&folder.path().join("d")).unwrap_err().to_string().contains("it is a folder"));
}

#[test]
fn what_is_no_toml_is_refused_with_its_place() {
    let syntax = mistake("name = 'j'\n[[task]\ncommand = ['x']");
    assert_eq!(syntax.line, 2);
    assert!(syntax.kind.to_string().starts_with("not valid TOML: "), "{syntax}");
    let twice = mistake("name = 'j'\nname = 'k'");
    assert_eq!((twice.line, twice.kind.to_string().as_str()), (2, "not valid TOML: duplicate key"));
    for text in ["=", "[", "name = ", "\u{feff}x", "a = '\u{1f980}", "[[task]]\ncommand = [", "ü = 'ß'\n= ü"] {
        // Shown without a panic, wherever the place is.
        assert!(!mistake(text).render(true).is_empty());
    }
    let wide = mistake("name = 'j' # ü\n[[task]]\nexecutor = 'noop'\nenv = { 'üü' = 'ü', B = 1 }");
    assert_eq!((wide.line, wide.column), (4, 25));
}

#[test]
fn durations_are_read_as_people_write_them() {
    use std::time::Duration;
    assert_eq!(values::duration("1h30m"), Some(Duration::from_secs(5_400)));
    assert_eq!(values::duration("1m500ms"), Some(Duration::from_millis(60_500)));
    assert_eq!(values::duration("7d"), Some(Duration::from_secs(604_800)));
    for wrong in ["", "5", "m", "1.5h", "-1s", "1m1h", "1s1s", "1 s", "99999999999999999999s", "9999999999999999d"] {
        assert_eq!(values::duration(wrong), None, "{wrong}");
    }
}

#[test]
fn every_example_is_a_job() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "toml") {
            let job = load(&path).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(Some(job.name.as_str()), path.file_stem().and_then(|stem| stem.to_str()));
            assert_eq!(JobSpec::from_wire(&job.to_wire()).unwrap(), job);
            seen += 1;
        }
    }
    assert!(seen >= 9, "expected the examples, found {seen}");
}
