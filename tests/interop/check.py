"""Holds the golden vectors against wire.py: opens every honest one, refuses every hostile one as its name says, and
seals what it read anew, for the Rust side to open: `check.py GOLDEN OUT`. Run with the tables' code of the next version,
it fills every field that only that has, and seals a message that only that knows; with that of the previous one, it
passes over what it does not know.

`check.py GOLDEN OUT REMOVED`: what a previous version sealed is what it had read, but for what it does not know."""

import json
import pathlib
import sys

import journal_generated as fb
from wire import CONTROL_STREAM, Kind, Opener, Refused, Sealer

KEY, KEY_ID, NOW_MS = b"\x42" * 32, 7, 1_700_000_000_000


def parts(data):
    """The frames of a hostile file: (stream, frame)."""
    while data:
        stream, length = (int.from_bytes(data[at : at + 4], "little") for at in (0, 4))
        yield stream, data[8 : 8 + length]
        data = data[8 + length :]


def frames(data):
    """The frames of an honest file, one behind the other."""
    while data:
        length = 4 + int.from_bytes(data[:4], "little")
        yield data[:length]
        data = data[length:]


def read(path):
    stream = 1 if path.stem == "Chunks" else CONTROL_STREAM
    opener, messages = Opener(KEY, KEY_ID), []
    for frame in frames(path.read_bytes()):
        messages += opener.open(frame, stream, NOW_MS)
    return messages


def refusal(path):
    opener, last = Opener(KEY, KEY_ID), None
    for stream, frame in parts(path.read_bytes()):
        try:
            opened = opener.open(frame, stream, NOW_MS)
        except Refused as refused:
            return refused.name
        last = next((message.name for _, message in opened if isinstance(message, Refused)), None)
    return last


def tables(value):
    """This table and every one within it."""
    if isinstance(value, list):
        for item in value:
            yield from tables(item)
    elif hasattr(value, "__dict__"):
        yield value
        for field in vars(value).values():
            yield from tables(field)


def fill_later(message):
    for table in tables(message):
        if hasattr(table, "later"):
            table.later = "what nobody knows yet"


def without(message, removed):
    """As plain data, the given fields as if they had been absent."""
    for table in tables(message):
        field = removed.get(type(table).__name__.removesuffix("T"))
        if field is not None:
            first, *rest = field.split("_")
            name = first + "".join(word.capitalize() for word in rest)
            setattr(table, name, getattr(type(table)(), name))
    return plain(message)


def plain(value):
    if isinstance(value, list):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    return {name: plain(field) for name, field in vars(value).items()} if hasattr(value, "__dict__") else value


def compare(golden, out, removed):
    """Two readings by today's code: of the golden files, and of what a previous version made of them."""
    sealed = sorted(out.glob("*.bin"))
    for path in sealed:
        theirs = [(kind, plain(message)) for kind, message in read(path)]
        ours = [(kind, without(message, removed)) for kind, message in read(golden / path.name)]
        if theirs != ours:
            print(f"{path.name}: {theirs}\ninstead of {ours}")
            return False
    print(f"{len(sealed)} files sealed by the previous version are what it read")
    return bool(sealed)


def main(golden, out):
    out.mkdir(parents=True, exist_ok=True)
    wrong, unknown = 0, 0
    honest = sorted(golden.glob("*.bin"))
    for path in honest:
        messages = read(path)
        if any(message is None for _, message in messages):
            unknown += 1
            continue
        for _, message in messages:
            fill_later(message)
        sealer = Sealer(KEY, KEY_ID, packed=path.stem == "Packed")
        bulk = path.stem == "Chunks"
        sealed = sealer.seal_bulk(NOW_MS, messages, 1) if bulk else sealer.seal(NOW_MS, messages)
        (out / path.name).write_bytes(sealed)
    if hasattr(Kind, "Novelty"):
        novelty = fb.NoveltyT()
        novelty.text = "a message that nobody knows yet"
        (out / "Novelty.bin").write_bytes(Sealer(KEY, KEY_ID).seal(NOW_MS, [(Kind.Novelty, novelty)]))
    hostile = sorted((golden / "hostile").glob("*.bin"))
    for path in hostile:
        expected, found = path.stem.split("-")[0], refusal(path)
        if found != expected:
            print(f"{path.name}: {found}")
            wrong += 1
    print(
        f"{len(honest) - unknown} honest files read and sealed anew, {unknown} passed over, "
        f"{len(hostile)} hostile ones refused, {wrong} otherwise"
    )
    return wrong == 0 and bool(honest) and bool(hostile)


if __name__ == "__main__":
    folders = [pathlib.Path(argument) for argument in sys.argv[1:3]]
    passed = compare(*folders, json.loads(pathlib.Path(sys.argv[3]).read_text())) if sys.argv[3:] else main(*folders)
    sys.exit(0 if passed else 1)
