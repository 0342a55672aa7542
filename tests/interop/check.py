"""Holds the golden vectors against wire.py: opens every honest one, refuses every hostile one as its name says, and
seals what it read anew, for the Rust side to open: `check.py GOLDEN OUT`."""

import pathlib
import sys

from wire import CONTROL_STREAM, Opener, Refused, Sealer

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


def main(golden, out):
    out.mkdir(parents=True, exist_ok=True)
    wrong = 0
    honest = sorted(golden.glob("*.bin"))
    for path in honest:
        messages = read(path)
        sealer = Sealer(KEY, KEY_ID, packed=path.stem == "Packed")
        bulk = path.stem == "Chunks"
        sealed = sealer.seal_bulk(NOW_MS, messages, 1) if bulk else sealer.seal(NOW_MS, messages)
        (out / path.name).write_bytes(sealed)
    hostile = sorted((golden / "hostile").glob("*.bin"))
    for path in hostile:
        expected, found = path.stem.split("-")[0], refusal(path)
        if found != expected:
            print(f"{path.name}: {found}")
            wrong += 1
    print(f"{len(honest)} honest files read and sealed anew, {len(hostile)} hostile ones refused, {wrong} otherwise")
    return wrong == 0 and bool(honest) and bool(hostile)


if __name__ == "__main__":
    sys.exit(0 if main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])) else 1)
