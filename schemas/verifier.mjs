// Writes the verification pass for what comes off the wire or from a journal (schemas/src/verifier_generated.rs) from flatc's own
// generated code: each `visit_…` line of its verifier becomes one line of ours, so that the two check the same
// fields. What it does not know how to translate stops it.

const ROOTS = ["MessageEnvelope", "Body", "JobSpec", "FactRecord"];
const SCALARS = { bool: 1, u8: 1, i8: 1, u16: 2, i16: 2, u32: 4, i32: 4, f32: 4, u64: 8, i64: 8, f64: 8 };

/** The verifier's Rust for the tables that the roots can reach. */
export function generateVerifier(code) {
  code = code.replaceAll("::flatbuffers::", "");
  const tables = new Map();
  for (const [, name, body] of code.matchAll(/impl Verifiable for (\w+)<'_> \{(.*?)\n\}\n/gs)) tables.set(name, body);
  const enums = new Map([...code.matchAll(/Verifiable for (\w+) \{.{0,200}?\n    (\w+)::run_verifier\(v, pos\)/gs)].map((m) => [m[1], SCALARS[m[2]]]));
  const structs = new Map([...code.matchAll(/\npub struct (\w+)\(pub \[u8; (\d+)\]\);/g)].map((m) => [m[1], Number(m[2])]));
  const slots = new Map();
  for (const [, name, body] of code.matchAll(/\nimpl<'a> (\w+)<'a> \{\n((?:  pub const VT_.*\n)+)/g)) {
    slots.set(name, new Map([...body.matchAll(/(VT_\w+): VOffsetT = (\d+);/g)].map((m) => [m[1], Number(m[2])])));
  }
  const width = (type) => SCALARS[type] ?? enums.get(type);
  const snake = (name) => name.replace(/(?<=.)([A-Z])/g, "_$1").toLowerCase();
  const fail = (what) => { throw new Error(`the verifier's generator does not know ${what}`); };
  const depths = new Map();
  const unions = new Map();

  // What lies behind an offset: the call that checks it at `at`.
  const target = (type, use) => {
    let inner;
    if (type === "&str" || type === "&'_ str") return "v.text(at)";
    if ((inner = type.match(/^Vector<'_, ForwardsUOffset<(.*)>>$/)?.[1])) {
      if (inner.startsWith("&")) return "v.each(at, Verifier::text)";
      return tables.has(inner) ? (use(inner), `v.each(at, ${snake(inner)})`) : fail(type);
    }
    if ((inner = type.match(/^Vector<'_, (\w+)>$/)?.[1])) {
      if (structs.has(inner)) return `v.vector(at, ${structs.get(inner)}, 1)`;
      return `v.vector(at, ${width(inner) ?? fail(type)}, ${width(inner)})`;
    }
    if (tables.has(type)) { use(type); return `${snake(type)}(v, at)`; }
    return fail(type);
  };
  const offset = (type) => type.match(/^ForwardsUOffset<(.*)>$/)?.[1];

  const write = (name, trail) => {
    if (trail.includes(name)) fail(`${name}, which holds itself`);
    if (depths.has(name)) return [];
    let below = 0, inline = 0;
    const before = [], lines = [];
    const use = (type) => { before.push(...write(type, [...trail, name])); below = Math.max(below, depths.get(type)); };
    const slot = (constant) => slots.get(name)?.get(constant) ?? fail(`${name}::${constant}`);
    const rest = tables.get(name);
    const visits = rest.match(/\.visit_\w+/g) ?? [];
    let seen = 0;
    for (const [, type, constant, required] of rest.matchAll(/\n     \.visit_field::<(.*)>\("\w+", Self::(VT_\w+), (\w+)\)\?/g)) {
      seen++;
      if (required !== "false") fail("required fields");
      const at = slot(constant);
      const pointed = offset(type);
      if (pointed) {
        inline += 4;
        lines.push([at, `    if let Some(at) = table.offset(v, ${at})? {\n        ${target(pointed, use)}?;\n    }\n`]);
      } else if (structs.has(type)) {
        inline += structs.get(type);
        lines.push([at, `    table.inline(${at}, ${structs.get(type)}, 1);\n`]);
      } else {
        inline += width(type) ?? fail(type);
        lines.push([at, `    table.inline(${at}, ${width(type)}, ${width(type)});\n`]);
      }
    }
    for (const [, key, keyAt, valueAt, required, arms] of rest.matchAll(/\n     \.visit_union::<(\w+), _>\("\w+", Self::(VT_\w+), "\w+", Self::(VT_\w+), (\w+), \|key, v, pos\| \{\n        match key \{\n(.*?)\n        \}\n     \}\)\?/gs)) {
      seen++;
      if (required !== "false" || enums.get(key) !== 1) fail(`a union of ${key}`);
      inline += 5;
      lines.push([slot(keyAt), `    if let Some((kind, place)) = table.union(v, ${slot(keyAt)}, ${slot(valueAt)})? {\n        ${snake(key)}(v, fb::${key}(kind), place)?;\n    }\n`]);
      const variants = arms.split("\n").map((line) => line.trim()).filter((arm) => arm !== "_ => Ok(()),").map((arm) =>
        arm.match(/^(\w+::\w+) => v\.verify_union_variant::<ForwardsUOffset<(\w+)>>\("[\w:]+", pos\),$/) ?? fail(arm));
      for (const [, , type] of variants) use(type);
      const text = `fn ${snake(key)}(v: &mut Verifier<'_>, kind: fb::${key}, place: usize) -> Option<()> {\n    match kind {\n` +
        variants.map(([, variant, type]) => `        fb::${variant} => {\n            let at = v.follow(place)?;\n            ${snake(type)}(v, at)\n        }\n`).join("") +
        "        // Nobody reads what is not known.\n        _ => Some(()),\n    }\n}\n";
      if (unions.has(key) && unions.get(key) !== text) fail(`two unions of ${key}`);
      if (!unions.has(key)) before.push(text);
      unions.set(key, text);
    }
    if (seen !== visits.length - 1) fail(`all of ${name}'s fields`);   // the other one is visit_table
    lines.sort((a, b) => a[0] - b[0]);
    depths.set(name, below + 1);
    const mutable = lines.some(([, line]) => line.includes("table.inline")) ? "mut " : "";
    const text = `fn ${snake(name)}(v: &mut Verifier<'_>, at: usize) -> Option<()> {\n` +
      `    let ${mutable}table = v.table(at, ${inline})?;\n${lines.map(([, line]) => line).join("")}    table.finish(v)\n}\n`;
    return [...before, text];
  };
  const functions = ROOTS.flatMap((root) => write(root, []));
  const public_ = functions.map((text) => ROOTS.some((root) => text.startsWith(`fn ${snake(root)}(`)) ? "pub(super) " + text : text);
  const depth = Math.max(...ROOTS.map((root) => depths.get(root)));
  return `use super::{Verifier, fb};\n\n/// How deep tables can lie in each other: no schema here holds itself.\npub const DEPTH: usize = ${depth};\n\n` + public_.join("\n");
}
