#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::{
    build::{self, Builder},
    diff::{Change, diff},
    read::to_json,
    schema::{Schema, Type},
};
use fleetwire_common::fb;
use serde_json::{Value, json};
use std::{fs, path::PathBuf};

fn golden() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../schemas/golden/0.1");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "bin"));
    files.sort();
    let read = |path: &PathBuf| (path.file_stem().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap());
    files.iter().map(read).collect()
}

fn parse(text: &str) -> Schema {
    Schema::parse(&[("a.fbs", text)]).unwrap()
}

fn refusal(text: &str) -> String {
    Schema::parse(&[("a.fbs", text)]).unwrap_err().to_string()
}

#[test]
fn our_own_schema_says_what_the_generated_code_says() {
    let schema = Schema::ours().unwrap();
    assert_eq!(schema.root.as_deref(), Some("MessageEnvelope"));
    let Some(Type::Union(members)) = schema.types.get("SchedulerMessage") else { panic!("no union of messages") };
    for member in members {
        assert_eq!(fb::SchedulerMessage(member.number).variant_name(), Some(member.name.as_str()));
    }
    assert_eq!(members.last().map(|last| last.number), Some(fb::SchedulerMessage::ENUM_MAX));
    let slot = |table: &str, name: &str| {
        let field = schema.table(table).unwrap().iter().find(|field| field.name == name).unwrap();
        4 + 2 * field.id
    };
    assert_eq!(slot("MessageEnvelope", "signature"), fb::MessageEnvelope::VT_SIGNATURE);
    assert_eq!(slot("TaskAssignment", "receipt"), fb::TaskAssignment::VT_RECEIPT);
    assert_eq!(schema.size(&super::schema::Kind::Named("Receipt".into())), Some((32, 8)));
}

#[test]
fn every_message_goes_into_json_and_back() {
    let schema = Schema::ours().unwrap();
    for (name, bytes) in golden() {
        let json = to_json(&schema, "MessageEnvelope", &bytes[4..]).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut builder = Builder::new();
        let root = build::table(&schema, "MessageEnvelope", &json, &mut builder, &[]).unwrap();
        builder.finish_minimal(root);
        let table = flatbuffers::root::<fb::MessageEnvelope<'_>>(builder.finished_data()).unwrap();
        // Three pieces of one body are three frames in one file: the first of them will do.
        let length = 4 + u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
        let original = flatbuffers::size_prefixed_root::<fb::MessageEnvelope<'_>>(&bytes[..length]).unwrap();
        assert_eq!(format!("{:?}", table.unpack()), format!("{:?}", original.unpack()), "{name}");
        assert_eq!(to_json(&schema, "MessageEnvelope", builder.finished_data()).unwrap(), json, "{name}");
    }
}

#[test]
fn what_is_no_message_is_refused_and_never_a_panic() {
    let schema = Schema::ours().unwrap();
    let mut state = 1u64;
    let mut random = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) as usize
    };
    for (_, bytes) in golden() {
        for _ in 0..300 {
            let mut changed = bytes[4..].to_vec();
            for _ in 0..1 + random() % 4 {
                let at = random() % changed.len();
                changed[at] = random() as u8;
            }
            changed.truncate(random() % (changed.len() + 1));
            let _ = to_json(&schema, "MessageEnvelope", &changed);
        }
    }
    // A vector that names one table a million times.
    let mut bomb = vec![0u8; 4 << 20];
    bomb.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at % 7) as u8);
    let _ = to_json(&schema, "Page", &bomb);
}

#[test]
fn json_that_the_schema_cannot_say_is_refused_with_its_place() {
    let schema = Schema::ours().unwrap();
    let refusal = |json: Value| {
        build::table(&schema, "MessageEnvelope", &json, &mut Builder::new(), &[]).err().unwrap().to_string()
    };
    let with = |message: Value| json!({ "message_type": "StatusUpdate", "message": message });
    for (json, expected) in [
        (json!([]), "the envelope: expected an object with MessageEnvelope's fields, found []"),
        (json!({ "verson": 1 }), "the envelope: expected one of version, timestamp"),
        (json!({ "version": 70_000 }), "version: expected an integer from 0 to 65535, found 70000"),
        (json!({ "message": {} }), "message: expected a message's name in `message_type`, found nothing"),
        (with(json!({ "status": "Runing" })), "message.status: expected one of Pending, Running"),
        (
            with(json!({ "metrics": [{ "name": "a" }, { "value": "x" }] })),
            "message.metrics[1].value: expected a number",
        ),
        (with(json!({ "task_id": 7 })), "message.task_id: expected a text, found 7"),
        (json!({ "signature": "zz" }), "signature: expected bytes, as `text:…` or `hex:…`, found \"zz\""),
    ] {
        let found = refusal(json);
        assert!(found.starts_with(expected), "{found}");
    }
}

#[test]
fn schemas_are_read_strictly_and_mistakes_are_named_with_their_line() {
    let all = parse(
        "// words\ninclude \"x.fbs\"; namespace a.b; attribute \"old\"; file_identifier \"ABCD\";\n\
         enum E : ubyte (bit_flags) { A, B = 3, C }\nstruct S { x:int; y:[ubyte:3]; }\n\
         table T { a:int = -5 (deprecated); /* union, takes two */ u:U; s:S (required); v:[a.b.T]; e:E = A; }\n\
         union U { T, Other:T }\nroot_type T; rpc_service R { call(T):T (streaming: \"none\"); }",
    );
    let ids: Vec<(&str, u16)> = all.table("T").unwrap().iter().map(|field| (&*field.name, field.id)).collect();
    assert_eq!(ids, [("a", 0), ("u", 2), ("s", 3), ("v", 4), ("e", 5)]);
    let Some(Type::Enum(flags)) = all.types.get("E") else { panic!("no enum") };
    assert_eq!(flags.values.iter().map(|(_, bit)| *bit).collect::<Vec<_>>(), [1, 8, 16]);
    for (text, expected) in [
        ("table T {\n a:int\n b:int; }", "a.fbs:3: expected `;`, found `b`"),
        ("table T { a:Thing; }", "a.fbs:1: expected a type that is declared, found `Thing`"),
        ("table T { a:int (id: 0); b:int; }", "a.fbs:1: expected an id for every field or for none, found `T`"),
        ("table T { a:int (id: 0); b:int (id: 0); }", "a.fbs:1: expected each id once in `T`, found one twice"),
        ("table T { a:int (id: x); }", "a.fbs:1: expected an id from 0 to 65535, found `)`"),
        ("table T {}\ntable T {}", "a.fbs:2: expected a name that no other type has, in whatever namespace, found `T`"),
        ("enum E : float { A }", "a.fbs:1: expected an integer type such as `ubyte`, found `float`"),
        ("tabel T {}", "a.fbs:1: expected a declaration such as `table`, found `tabel`"),
        ("table T {", "a.fbs:1: expected a name, found the end of the file"),
        ("table T { a:string = \"x; }", "a.fbs:1: expected a text that ends on its line, found `\"`"),
        ("table T { a:int; } %", "a.fbs:1: expected a schema's words and signs, found `%`"),
    ] {
        assert_eq!(refusal(text), expected);
    }
}

/// What is replaced in a schema's text, and by what.
type Edits<'a> = &'a [(&'a str, &'a str)];

#[test]
fn changes_are_judged_by_the_rules_of_evolution() {
    const WAS: &str = "enum E : ubyte { A, B } union U { T } struct S { x:int; }\n\
                       table T { a:int (id: 0); b:string (id: 1); u:U (id: 3); } root_type T;";
    let judge = |change: &[(&str, &str)]| {
        let is = change.iter().fold(WAS.to_owned(), |text, (from, to)| text.replacen(from, to, 1));
        assert_ne!(is, WAS, "{change:?}");
        diff(&parse(WAS), &parse(&is))
    };
    assert_eq!(diff(&parse(WAS), &parse(WAS)), []);
    let keeps: [(Edits<'_>, &str); 5] = [
        (&[("u:U (id: 3);", "u:U (id: 3); c:[int] (id: 4);")], "T.c"),
        (&[("u:U (id: 3);", "u:U (id: 3); v:U (id: 5);")], "T.v"),
        (&[("{ A, B }", "{ A, B, C }")], "E.C"),
        (&[("root_type", "table N {} root_type"), ("{ T }", "{ T, N }")], "U.N"),
        (&[("a:int (id: 0)", "a:int (id: 0, deprecated)")], "T.a"),
    ];
    for (change, place) in keeps {
        let found = judge(change);
        assert!(found.iter().all(|it| !it.breaks) && found.iter().any(|it| it.place == place), "{found:?}");
    }
    let breaks: [(Edits<'_>, &str, &str); 14] = [
        (&[("a:int (id: 0)", "a:long (id: 0)")], "T.a", "was int, is long"),
        (&[("a:int (id: 0)", "z:int (id: 0)")], "T.a", "id 0 is called z now: names never change"),
        (&[("a:int (id: 0)", "a:int = 3 (id: 0)")], "T.a", "says 3 when it is absent, said 0"),
        (&[("a:int (id: 0)", "a:int (id: 1)"), ("b:string (id: 1)", "b:string (id: 0)")], "T.a", "id was 0, is 1"),
        (&[("b:string (id: 1)", "b:string (id: 1, required)")], "T.b", "is required now"),
        (&[("b:string (id: 1); ", "")], "T.b", "id 1 is gone: mark it deprecated instead"),
        (&[("u:U (id: 3);", "u:U (id: 3); c:string (id: 4, required);")], "T.c", "is new and required"),
        (&[("{ A, B }", "{ N, A, B }")], "E.A", "was 0, is 1"),
        (&[("{ A, B }", "{ A }")], "E.B", "1 is gone: its number stays taken"),
        (&[("E : ubyte", "E : ushort")], "E", "was stored as ubyte, is stored as ushort"),
        (&[("struct S { x:int; }", "struct S { x:int; y:int; }")], "S", "is a struct, which never changes"),
        (&[("struct S { x:int; }", "table S { x:int; }")], "S", "was a struct, is a table"),
        (&[("struct S { x:int; }", "")], "S", "is gone"),
        (&[("root_type T;", "")], "root_type", "was T, is nothing"),
    ];
    for (change, place, says) in breaks {
        let found = judge(change);
        let right = |it: &Change| it.breaks && it.place == place && it.what.starts_with(says);
        assert!(found.iter().any(right), "expected {place}: {says}, found {found:?}");
    }
}
