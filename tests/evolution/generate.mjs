// Writes the wire's code in Rust as the versions before and after this one have it, and which fields the one before
// lacks: `node tests/evolution/generate.mjs FOLDER`. Facts are left out: no peer sees one.
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { generateCode, schemas } from "../../schemas/flatc.mjs";
import { next, previous } from "../interop/versions.mjs";

const out = process.argv[2];
const today = schemas(join(dirname(fileURLToPath(import.meta.url)), "../../schemas"));
const removed = {};
const before = previous(today, removed);
// What a later version has more, it always says.
const after = Object.fromEntries(
  Object.entries(next(today)).map(([name, text]) => [name, text.replaceAll("later:string", 'later:string = "unheard of"')]),
);
mkdirSync(out, { recursive: true });
for (const [name, files] of [["previous", before], ["next", after]]) {
  const texts = Object.values(await generateCode(files, "envelope.fbs", "rust"));
  if (texts.length !== 1) throw new Error(`expected one generated file, got ${texts.length}`);
  writeFileSync(join(out, `${name}.rs`), texts[0].replaceAll("#[non_exhaustive]\n", ""));
}
writeFileSync(join(out, "removed.txt"), [...new Set(Object.values(removed))].join("\n"));
