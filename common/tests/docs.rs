//! docs/protocol.md is true: its tables are those of the code, its example is what the code makes, and
//! every place in it that the code cites exists. `FLEETWIRE_WRITE_DOCS=1 cargo test -p fleetwire-common
//! --test docs` writes the generated parts anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use fleetwire_common::{
    envelope::{
        Features, Opener, Sealer,
        keys::{Epoch, RootKeys, Secret, session_keys},
    },
    fb,
    ids::{Name, Principal, TokenId, role_name},
    limits,
    message::{is_final, nearest_seed_status},
    roles::RULES,
    time::Time,
};
use std::{collections::BTreeSet, fmt::Write, fs, path::Path, path::PathBuf};
use support::*;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn protocol() -> String {
    fs::read_to_string(root().join("docs/protocol.md")).unwrap()
}

/// The rows of the table under a heading, as cells.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let text = protocol();
    let section = text.split("\n## ").find(|section| section.lines().next() == Some(heading)).unwrap();
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    section.lines().filter(|line| line.starts_with('|') && !line.starts_with("|-")).map(cells).collect()
}

/// Holds a generated part against what it should be, or writes it.
fn hold(name: &str, expected: &str) {
    let text = protocol();
    let begin = format!("<!-- generated: {name} -->\n");
    let (before, rest) = text.split_once(&begin).unwrap();
    let (found, after) = rest.split_once("<!-- end -->").unwrap();
    if std::env::var_os("FLEETWIRE_WRITE_DOCS").is_some() {
        if found != expected {
            fs::write(root().join("docs/protocol.md"), format!("{before}{begin}{expected}<!-- end -->{after}"))
                .unwrap();
        }
        return;
    }
    assert_eq!(
        found, expected,
        "docs/protocol.md is stale: the head of common/tests/docs.rs says how to write it anew"
    );
}

// §seal-1 §seal-3 §key-1 §key-2 §key-4
#[test]
fn the_generated_parts_are_what_the_code_says() {
    // One test, so that two never write the page at once.
    hold("roles", &roles_table());
    hold("example", &example());
}

fn roles_table() -> String {
    let roles = [fb::Role::Agent, fb::Role::Operator, fb::Role::Service, fb::Role::Viewer];
    let mut table = String::from("| message | agent | operator | service | viewer |\n|---|---|---|---|---|\n");
    for rule in RULES.iter().filter(|rule| !rule.senders.is_empty()) {
        write!(table, "| `{}` |", rule.message.variant_name().unwrap()).unwrap();
        for role in roles {
            write!(table, " {} |", if rule.senders.contains(&role) { "yes" } else { "–" }).unwrap();
        }
        table.push('\n');
    }
    let nobody = RULES.iter().filter(|rule| rule.senders.is_empty());
    let nobody: Vec<String> = nobody.map(|rule| format!("`{}`", rule.message.variant_name().unwrap())).collect();
    writeln!(table, "\nFrom nobody, once a session is open: {}.", nobody.join(", ")).unwrap();
    let names: Vec<&str> = roles.map(role_name).into();
    writeln!(table, "In certificates the roles are written `{}`.", names.join("`, `")).unwrap();
    table
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn example() -> String {
    let root = RootKeys::new(Secret::new([1; 32]));
    let principal = Principal { role: fb::Role::Agent, name: Name::new("pi-1").unwrap() };
    let epoch = Epoch { number: 5, secret: Secret::new([2; 32]) };
    let (hello, welcome) = ([6u8; 16], [7u8; 16]);
    let enrolment = root.enrolment_key(&principal);
    let token = root.token_secret(TokenId(3), Time(1_700_000_000_000_000));
    let epoch_key = epoch.key(&principal);
    let salt = [hello, welcome].concat();
    let derived = |label: &[u8]| epoch_key.derive(&salt, &[b"fleetwire session", label]);
    let to = session_keys(&epoch_key, &hello, &welcome).to_scheduler;

    let mut sealer = Sealer::new(to.clone(), epoch.number, Features::ALL);
    let mut frame = Vec::new();
    sealer.seal(NOW_MS, &[heartbeat()], &mut frame);
    let mut opener = Opener::new(to, epoch.number);
    open(&mut opener, &frame).unwrap();

    let mut text = String::from("```text\n");
    for (name, value) in [
        ("root secret", hex(&[1; 32])),
        ("secret of epoch 5", hex(&[2; 32])),
        ("Hello's nonce", hex(&hello)),
        ("Welcome's nonce", hex(&welcome)),
        ("enrolment key of agent/pi-1", hex(enrolment.bytes())),
        ("secret of token 3, ends 2023-11-14T22:13:20Z", hex(token.bytes())),
        ("epoch key of agent/pi-1", hex(epoch_key.bytes())),
        ("session key, to scheduler", hex(derived(b"to scheduler").bytes())),
        ("session key, from scheduler", hex(derived(b"from scheduler").bytes())),
    ] {
        writeln!(text, "{name}\n    {value}").unwrap();
    }
    let receipt = root.receipt_mac(1, &[9; 16], fleetwire_common::ids::Position(1_000));
    writeln!(text, "MAC of the receipt of incarnation 1, id {}, position 1000\n    {}", hex(&[9; 16]), hex(&receipt))
        .unwrap();
    text.push_str("```\n\n");
    let length = frame.len();
    writeln!(
        text,
        "The heartbeat (250 millicores, 512 MB, 3 GB, 2 attempts, answer wanted; sealed at {NOW_MS}) is a frame of {length} bytes:\n"
    )
    .unwrap();
    text.push_str("```text\n");
    for (at, row) in (0..).step_by(16).zip(frame.chunks(16)) {
        writeln!(text, "{at:04x}  {}", hex(row)).unwrap();
    }
    text.push('\n');
    let field = |name: &str, range: std::ops::Range<usize>| {
        format!("{:04x} … {:04x}  {name}: {}\n", range.start, range.end - 1, hex(&frame[range.clone()]))
    };
    text.push_str(&field("length of what follows", 0..4));
    text.push_str(&field("offset of the root table", 4..8));
    text.push_str(&field("length of the signature vector", length - 40..length - 36));
    text.push_str(&field("key id, the epoch", length - 36..length - 32));
    text.push_str(&field("tag", length - 32..length));
    text.push_str("```\n");
    text
}

#[test]
fn every_place_that_the_code_cites_exists() {
    let anchor = |heading: &str| {
        let kept = heading.trim_start_matches('#').trim().to_lowercase();
        kept.chars()
            .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-')
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    };
    let anchors = |page: &str| -> BTreeSet<String> {
        let text = fs::read_to_string(root().join("docs").join(page)).unwrap_or_default();
        text.lines().filter(|line| line.starts_with('#')).map(anchor).collect()
    };
    let mut missing = Vec::new();
    let mut cited = 0;
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = entry.file_name().unwrap().to_string_lossy().into_owned();
            if entry.is_dir() {
                if !name.starts_with('.') && name != "target" && name != "node_modules" {
                    folders.push(entry);
                }
            } else if Path::new(&name)
                .extension()
                .is_some_and(|ending| ending == "rs" || ending == "md" || ending == "fbs")
            {
                for citation in fs::read_to_string(&entry).unwrap_or_default().split("docs/").skip(1) {
                    let Some((page, rest)) = citation.split_once(".md#") else { continue };
                    if page.contains(|c: char| !c.is_alphanumeric() && c != '-') {
                        continue;
                    }
                    let place: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '-').collect();
                    cited += usize::from(!place.is_empty());
                    if !place.is_empty() && !anchors(&format!("{page}.md")).contains(&place) {
                        missing.push(format!("{}: docs/{page}.md#{place}", entry.display()));
                    }
                }
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(cited > 5, "{cited}");
    // And those that the page itself points at.
    let (text, known) = (protocol(), anchors("protocol.md"));
    for link in text.split("](#").skip(1) {
        let place = link.split(')').next().unwrap();
        assert!(known.contains(place), "#{place}");
    }
}

#[test]
fn every_error_code_has_its_row() {
    let rows = rows("Errors");
    let found: Vec<(String, String)> = rows.iter().skip(1).map(|row| (row[0].clone(), row[1].clone())).collect();
    let name = |code: &fb::ErrorCode| (code.0.to_string(), code.variant_name().unwrap().to_owned());
    assert_eq!(found, fb::ErrorCode::ENUM_VALUES.iter().map(name).collect::<Vec<_>>());
}

#[test]
fn every_status_has_its_row() {
    let rows = rows("Statuses");
    let found: Vec<[String; 4]> = rows.iter().skip(1).map(|row| std::array::from_fn(|n| row[n].clone())).collect();
    let row = |status: &fb::TaskStatus| {
        let name = |status: fb::TaskStatus| status.variant_name().unwrap().to_owned();
        let last = if is_final(*status) { "yes" } else { "no" };
        [name(*status), status.0.to_string(), last.to_owned(), name(nearest_seed_status(*status))]
    };
    assert_eq!(found, fb::TaskStatus::ENUM_VALUES.iter().map(row).collect::<Vec<_>>());
}

#[test]
fn every_feature_has_its_row() {
    let rows = rows("Sessions");
    let found: Vec<(String, u64)> = rows
        .iter()
        .skip_while(|row| row[0] != "feature")
        .skip(1)
        .take_while(|row| row[0] != "message")
        .map(|row| (row[0].clone(), 1 << row[1].parse::<u64>().unwrap()))
        .collect();
    let expected = [
        ("interned metrics", Features::INTERNED_METRICS),
        ("packed", Features::PACKED),
        ("batch", Features::BATCH),
        ("extended status", Features::EXTENDED_STATUS),
    ];
    assert_eq!(found, expected.map(|(name, feature)| (name.to_owned(), feature.0)));
    assert_eq!(expected.iter().fold(0, |all, (_, feature)| all | feature.0), Features::ALL.0);
}

#[test]
fn every_limit_has_its_value() {
    macro_rules! values {
        ($($name:ident),* $(,)?) => { [$((stringify!($name), limits::$name as u64)),*] };
    }
    let values = values![
        FRAME_BYTES_CODEC_MAX,
        FRAME_BYTES_MAX,
        BODY_BYTES_INLINE_MAX,
        CHUNK_BYTES,
        BODY_BYTES_MAX,
        COMPRESS_BYTES_MIN,
        BATCH_ITEMS_MAX,
        BATCH_BYTES_MAX,
        BULK_STREAMS_MAX,
        STALE_AFTER_MS,
        METRIC_NAMES_MAX,
        METRIC_NAME_BYTES_MAX,
        METRICS_MAX,
        NOTE_BYTES_MAX,
        NAME_BYTES_MAX,
        VALUE_BYTES_MAX,
        LABELS_MAX,
        TASK_ENTRIES_MAX,
        ARRAY_TASKS_MAX,
        ARGUMENTS_MAX,
        ENVIRONMENT_MAX,
        CONSTRAINTS_MAX,
        PREFERENCES_MAX,
        CONSTRAINT_VALUES_MAX,
        CONSTRAINT_VALUE_BYTES_MAX,
        PATTERN_BYTES_MAX,
        CUSTOM_RESOURCES_MAX,
        CUSTOM_AMOUNT_MAX,
        FILES_MAX,
        FILES_BYTES_MAX,
        PARAMETERS_BYTES_MAX,
        JOB_BYTES_MAX,
        RESULT_BYTES_MAX,
        AGENT_ATTEMPTS_MAX,
        PAGE_ROWS_MAX,
        LOG_CHUNK_BYTES_MAX,
        QUERY_WAIT_MS_MAX,
    ];
    let found: Vec<(String, String)> =
        rows("Limits").iter().skip(1).map(|row| (row[0].clone(), row[1].clone())).collect();
    assert_eq!(found, values.map(|(name, value)| (format!("`{name}`"), value.to_string())));
}

/// Each requirement of the page (a paragraph sign, a name, a number) is cited where it is kept and where it is tested.
#[test]
fn every_requirement_is_cited_by_the_code_and_by_a_test() {
    let tags = |text: &str| -> BTreeSet<String> {
        let tag = |rest: &str| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect::<String>();
        text.split('§').skip(1).map(tag).filter(|tag| tag.contains('-')).collect()
    };
    let required: BTreeSet<String> =
        protocol().split("**§").skip(1).flat_map(|rest| tags(&format!("§{rest}"))).collect();
    assert!(required.len() > 60, "{}", required.len());
    let (mut code, mut tests) = (BTreeSet::new(), BTreeSet::new());
    let mut folders: Vec<PathBuf> = ["schemas", "common", "scheduler", "agent"].map(|name| root().join(name)).into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&entry).unwrap();
                let whole = entry.components().any(|part| {
                    let part = part.as_os_str().to_string_lossy();
                    part == "tests" || part == "stories" || part == "tests.rs"
                });
                let (kept, tested) =
                    if whole { ("", &*text) } else { text.split_once("#[cfg(test)]").unwrap_or((&text, "")) };
                code.extend(tags(kept));
                tests.extend(tags(tested));
            }
        }
    }
    let missing = |cited: &BTreeSet<String>| required.difference(cited).cloned().collect::<Vec<_>>();
    assert_eq!((missing(&code), missing(&tests)), (vec![], vec![]), "cited by no code; by no test");
    let unknown: Vec<_> = code.union(&tests).filter(|tag| !required.contains(*tag)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
