// Holds the golden vectors against wire.ts: opens every honest one, refuses every hostile one as its name says, and
// seals what it read anew, for the Rust side to open: `node check.js GOLDEN OUT`.

import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { CONTROL_STREAM, Message, Opener, Refused, Sealer } from "./wire.js";

const KEY = new Uint8Array(32).fill(0x42);
const KEY_ID = 7;
const NOW_MS = 1_700_000_000_000n;

/** The frames of an honest file, one behind the other. */
function* frames(data: Buffer): Generator<Uint8Array> {
  for (let from = 0; from < data.length; ) {
    const length = 4 + data.readUInt32LE(from);
    yield new Uint8Array(data.subarray(from, from + length));
    from += length;
  }
}

/** The frames of a hostile file, each with its stream. */
function* parts(data: Buffer): Generator<[number, Uint8Array]> {
  for (let from = 0; from < data.length; ) {
    const [stream, length] = [data.readUInt32LE(from), data.readUInt32LE(from + 4)];
    yield [stream, new Uint8Array(data.subarray(from + 8, from + 8 + length))];
    from += 8 + length;
  }
}

function read(path: string, stream: number): Message[] {
  const opener = new Opener(KEY, KEY_ID);
  return [...frames(readFileSync(path))].flatMap((frame) => opener.open(frame, stream, NOW_MS));
}

function refusal(path: string): string | undefined {
  const opener = new Opener(KEY, KEY_ID);
  let last: string | undefined;
  for (const [stream, frame] of parts(readFileSync(path))) {
    try {
      const refused = opener.open(frame, stream, NOW_MS).find(({ message }) => message instanceof Refused);
      last = (refused?.message as Refused | undefined)?.name;
    } catch (error) {
      return error instanceof Refused ? error.name : String(error);
    }
  }
  return last;
}

const [golden, out] = process.argv.slice(2);
if (!golden || !out) throw new Error("expected two folders: GOLDEN OUT");
mkdirSync(out, { recursive: true });
const files = (folder: string) => readdirSync(folder).filter((name) => name.endsWith(".bin")).sort();
const honest = files(golden);
for (const name of honest) {
  const sealer = new Sealer(KEY, KEY_ID);
  const bulk = name === "Chunks.bin";
  const messages = read(join(golden, name), bulk ? 1 : CONTROL_STREAM);
  writeFileSync(join(out, name), bulk ? sealer.sealBulk(NOW_MS, messages, 1) : sealer.seal(NOW_MS, messages));
}
const hostile = files(join(golden, "hostile"));
const wrong = hostile.filter((name) => {
  const found = refusal(join(golden, "hostile", name));
  if (found !== name.split("-")[0]) console.log(`${name}: ${found}`);
  return found !== name.split("-")[0];
});
console.log(`${honest.length} honest files read and sealed anew, ${hostile.length} hostile ones refused, ${wrong.length} otherwise`);
process.exit(wrong.length === 0 && honest.length > 0 && hostile.length > 0 ? 0 : 1);
