// Writes the tables' code in Python and TypeScript, and in Python also that of the versions before and after:
// `node tests/interop/generate.mjs FOLDER`.
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { generateCode, schemas } from "../../schemas/flatc.mjs";
import { next, previous } from "./versions.mjs";

const out = process.argv[2];
const today = schemas(join(dirname(fileURLToPath(import.meta.url)), "../../schemas"));
const removed = {};
function write(path, text) {
  mkdirSync(dirname(join(out, path)), { recursive: true });
  writeFileSync(join(out, path), text);
}
async function generate(folder, files, language, options = {}) {
  const texts = await generateCode(files, "journal.fbs", language, options);
  for (const [name, text] of Object.entries(texts)) write(join(folder, name), text);
}
// Python's code in one file: that of many files does not import all that it uses.
await generate("python", today, "python", { genOnefile: true });
await generate("python-next", next(today), "python", { genOnefile: true });
await generate("python-previous", previous(today, removed), "python", { genOnefile: true });
write("removed.json", JSON.stringify(removed));
await generate("ts", today, "ts");
