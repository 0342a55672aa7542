// Writes the tables' code in Python and TypeScript: `node tests/interop/generate.mjs FOLDER`.
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { generateCode, schemas } from "../../schemas/flatc.mjs";

const files = schemas(join(dirname(fileURLToPath(import.meta.url)), "../../schemas"));
// Python's code in one file: that of many files does not import all that it uses.
for (const [language, options] of [["python", { genOnefile: true }], ["ts", {}]]) {
  for (const [name, text] of Object.entries(await generateCode(files, "journal.fbs", language, options))) {
    const path = join(process.argv[2], language, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
  }
}
