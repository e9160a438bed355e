"""Damage done to a file's bytes: what disks, networks, editors and ill will do to files."""

import re

import numpy as np

_NUMBER = re.compile(rb"-?\d+\.?\d*(?:[eE][-+]?\d+)?")
NASTY_NUMBERS = [
    b"nan",
    b"inf",
    b"-inf",
    b"1e400",
    b"-1",
    b"0",
    b"1e308",
    b"99999999999999999999",
    b"0x",
    b"''",
    b"null",
]
NASTY_TEXT = [
    b"[" * 5000, b"{" * 5000, b'"', b"\x00", b"\xff\xfe", b"../../../../etc/passwd", b"<!ENTITY a 'b'>", b"&a;",
    b"\xc3\x28", b"!!python/object/apply:os.system ['true']", b"\n\n", b"=", b"]", b"<", b"[a]\n", b"9" * 5000,
]  # fmt: skip
CUT = "cut off"


def mutated(data: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """Damaged bytes, never those given, and what was done to them."""
    while True:
        name, mutate = _MUTATIONS[rng.integers(len(_MUTATIONS))]
        changed = mutate(data, rng)
        if changed != data:
            return changed, name


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(len(data))]


def _bits(data: bytes, rng: np.random.Generator) -> bytes:
    out = bytearray(data)
    for _ in range(rng.integers(1, 9)):
        out[rng.integers(len(out))] ^= 1 << rng.integers(8)
    return bytes(out)


def _bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes set to what lengths and counts overflow with, near the start or the end, where headers are."""
    out = bytearray(data)
    near = min(len(out), int(rng.choice([32, 256, 4096])))
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(near))
        out[place if rng.random() < 0.5 else len(out) - 1 - place] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))
    return bytes(out)


def _zeros(data: bytes, rng: np.random.Generator) -> bytes:
    start, stop = sorted(rng.integers(len(data) + 1, size=2))
    return data[:start] + bytes(stop - start) + data[stop:]


def _hole(data: bytes, rng: np.random.Generator) -> bytes:
    start, stop = sorted(rng.integers(len(data) + 1, size=2))
    return data[:start] + data[stop:]


def _twice(data: bytes, rng: np.random.Generator) -> bytes:
    start, stop = sorted(rng.integers(len(data) + 1, size=2))
    return data[:stop] + data[start:]


def _number(data: bytes, rng: np.random.Generator) -> bytes:
    found = list(_NUMBER.finditer(data))
    if not found:
        return data
    match = found[rng.integers(len(found))]
    return data[: match.start()] + NASTY_NUMBERS[rng.integers(len(NASTY_NUMBERS))] + data[match.end() :]


def _text(data: bytes, rng: np.random.Generator) -> bytes:
    place = rng.integers(len(data) + 1)
    return data[:place] + NASTY_TEXT[rng.integers(len(NASTY_TEXT))] + data[place:]


def _line(data: bytes, rng: np.random.Generator) -> bytes:
    lines = data.splitlines(keepends=True)
    a, b = rng.integers(len(lines), size=2)
    lines[a] = lines[b] if rng.random() < 0.5 else b""
    return b"".join(lines)


_MUTATIONS = [
    (CUT, _cut), ("bits flipped", _bits), ("bytes set", _bytes), ("zeros", _zeros), ("a hole", _hole),
    ("a part twice", _twice), ("a nasty number", _number), ("nasty text", _text), ("lines swapped", _line),
]  # fmt: skip
