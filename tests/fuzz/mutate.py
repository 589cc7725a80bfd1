"""Ways to damage what a program reads: bytes, TIFF directories, JSON, tables, texts, and folders of files.

Everything takes a `random.Random`, so that a case can be made again from its number.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

NUMBERS = [0, 1, -1, 2, 3, 7, 127, 128, 255, 256, 32767, 65535, 65536, 2**20, 2**24, 2**31 - 1, 2**31, 2**32 - 1,
           2**40, 2**53, 2**63 - 1, 2**64 - 1, 10**30, 10**400, -(2**31), 0.0, -0.5, 1e-300, 1e300, 5e-324]  # fmt: skip
PATHS = ["../../x", "/etc/passwd", "..", ".", "", "..\\..\\x", "C:\\windows\\x", "a/../../b", "x\x00y", "~",
         "n" * 5000, "\ud800", "\u202e", "con", "/dev/zero", "file:///etc/passwd", "./",
         "images/../../../x", "//host/x"]  # fmt: skip
WORDS = ["nan", "inf", "-inf", "null", "True", "[]", "{}", "1e999", "0x10", "<a>", '"', "'", "\n", "\r", "\x00",
         "\ufeff", "{0}", "%s", "[red]", "\x1b[31m", "=1+1", " ", "\u0660", "uint8", "float64", "|O",
         "gzip", "pickle"]  # fmt: skip
BYTES = [b"\x00", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff\xd8\xff", b"\xff\xd9"]


def flip(data: bytes, rng: Random) -> bytes:
    """Some bytes changed, most often a few, near each other or far apart."""
    out = bytearray(data)
    if not out:
        return rng.choice(BYTES)
    limit = rng.choice([64, 1024, len(out), len(out)])  # heads decide most
    for _ in range(rng.choice([1, 1, 2, 4, 16, 64])):
        place = rng.randrange(min(limit, len(out)))
        if rng.random() < 0.5:
            out[place] ^= 1 << rng.randrange(8)
        else:
            piece = rng.choice([*BYTES, bytes([rng.randrange(256)])])
            out[place : place + len(piece)] = piece
    return bytes(out)


def cut(data: bytes, rng: Random) -> bytes:
    """The end, or a piece of the beginning, left out."""
    place = rng.randrange(len(data) + 1) if data else 0
    return data[:place] if rng.random() < 0.9 else data[place:]


def shuffle_chunks(data: bytes, rng: Random) -> bytes:
    """A piece removed, doubled, or swapped with another."""
    if len(data) < 4:
        return data
    size = rng.choice([1, 2, 4, 12, 64, 512, max(1, len(data) // 4)])
    a, b = (rng.randrange(max(1, len(data) - size)) for _ in range(2))
    first, second = data[a : a + size], data[b : b + size]
    kind = rng.randrange(3)
    if kind == 0:
        return data[:a] + data[a + size :]
    if kind == 1:
        return data[:b] + first + data[b:]
    out = bytearray(data)
    out[a : a + size], out[b : b + size] = second, first
    return bytes(out)


def raw(data: bytes, rng: Random) -> bytes:
    """One of the three above."""
    return rng.choices([flip, cut, shuffle_chunks], [6, 2, 2])[0](data, rng)


# TIFF


def tiff(data: bytes, rng: Random) -> bytes:
    """A TIFF with odd values in its directories, in the tables that they point to, or in its texts."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 16:
        return raw(data, rng)
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    try:
        entries, links = _directories(data, order, big)
    except struct.error:
        return raw(data, rng)
    if not entries:
        return raw(data, rng)
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 5])):
        try:
            if links and rng.random() < 0.05:
                place = rng.choice([0, 8, rng.randrange(len(data)), len(data), 2**32 - 1, *links])
                struct.pack_into(order + ("Q" if big else "I"), out, rng.choice(links), place)
            else:
                _change_entry(out, rng.choice(entries), order, big, rng)
        except (struct.error, IndexError):  # beyond the end of the file
            continue
    return bytes(out) if rng.random() < 0.8 else raw(bytes(out), rng)


def _directories(data: bytes, order: str, big: bool) -> tuple[list[int], list[int]]:
    """Places of the entries of all directories, and of the links from one to the next."""
    count_format, width, place_format = ("Q", 20, "Q") if big else ("H", 12, "I")
    link = 8 if big else 4
    entries, links, seen = [], [], set()
    while len(links) < 64:
        links.append(link)
        place = struct.unpack_from(order + place_format, data, link)[0]
        if place == 0 or place in seen:
            break
        seen.add(place)
        count = struct.unpack_from(order + count_format, data, place)[0]
        first = place + struct.calcsize(count_format)
        entries += [first + width * index for index in range(min(count, 256))]
        link = first + width * count
    return entries, links


def _change_entry(out: bytearray, place: int, order: str, big: bool, rng: Random) -> None:
    tag, kind = struct.unpack_from(order + "HH", out, place)
    count_format, value = ("Q", place + 12) if big else ("I", place + 8)
    count = struct.unpack_from(order + count_format, out, place + 4)[0]
    mask = 2**64 - 1 if big else 2**32 - 1
    number = int(rng.choice([n for n in NUMBERS if isinstance(n, int) and abs(n) < 2**65])) & mask
    what = rng.randrange(10)
    width = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 12: 8, 16: 8}.get(kind, 1)
    inline = width * count <= (8 if big else 4)
    if what == 0:
        struct.pack_into(order + count_format, out, place + 4, rng.choice([number, count + 1, max(0, count - 1)]))
    elif what == 1:
        struct.pack_into(order + "H", out, place + 2, rng.choice([0, 1, 2, 3, 4, 5, 7, 11, 12, 13, 16, 18, 65535]))
    elif what == 2:
        tags = [256, 257, 258, 259, 262, 270, 277, 284, 320, 322, 323, 324, 325, 330, 338, 339, 347, 530, 32997, 65535]
        struct.pack_into(order + "H", out, place, rng.choice(tags))
    elif inline or what == 3:
        _put_inline(out, value, kind, order, big, number, tag, rng)
    else:
        target = struct.unpack_from(order + ("Q" if big else "I"), out, value)[0]
        if kind == 2:
            old = bytes(out[target : target + count])
            new = text(old, rng)[: len(old)].ljust(len(old), b" ")
            out[target : target + len(old)] = new[: len(old)]
        else:
            code = {1: "B", 3: "H", 4: "I", 16: "Q"}.get(kind, "I")
            item = target + rng.randrange(max(1, min(count, 4096))) * struct.calcsize(code)
            struct.pack_into(order + code, out, item, number & (2 ** (8 * struct.calcsize(code)) - 1))


def _put_inline(
    out: bytearray, value: int, kind: int, order: str, big: bool, number: int, tag: int, rng: Random
) -> None:
    codecs = [1, 5, 6, 7, 8, 32773, 32946, 33003, 33005, 34712, 34925, 50000, 50001, 50002]
    old = struct.unpack_from(order + "H", out, value)[0]
    if tag == 259:
        number = rng.choice(codecs)
    elif rng.random() < 0.4:
        number = max(0, old + rng.choice([-1, 1, 16, -16, old]))
    code = "H" if kind == 3 else ("Q" if big else "I")
    struct.pack_into(order + code, out, value, number & (2 ** (8 * struct.calcsize(code)) - 1))


# texts


def scalar(rng: Random) -> Any:
    """A value that somebody did not think of."""
    odd = [None, True, False, float("nan"), float("inf"), [], {}, [[]], [None], {"": 0}]
    texts = [rng.choice(WORDS), str(rng.choice(NUMBERS[:20])), "x" * rng.choice([1, 300, 100_000])]
    return rng.choice([*odd, *texts, *(rng.choice(kind) for kind in (NUMBERS, NUMBERS, PATHS, PATHS))])


def text(data: bytes, rng: Random) -> bytes:
    """Text with words or numbers exchanged, of another encoding, or damaged as bytes."""
    kind = rng.randrange(8)
    content = data.decode("utf-8", "replace")
    if kind == 0 or not content:
        return raw(data, rng)
    if kind == 1:
        return content.encode(rng.choice(["utf-16", "utf-32", "utf-8-sig", "latin-1", "cp037"]), "replace")
    pieces = _pieces(content)
    for _ in range(rng.choice([1, 1, 2, 4])):
        place = rng.randrange(len(pieces))
        kind = rng.randrange(4)
        if kind == 0 and len(pieces) > 1:
            del pieces[place]
        elif kind == 1:
            pieces.insert(place, rng.choice(pieces))
        else:
            pieces[place] = rng.choice([rng.choice(WORDS), rng.choice(PATHS), str(rng.choice(NUMBERS[:20]))])
    return "".join(pieces).encode("utf-8", "surrogatepass")


def _pieces(content: str) -> list[str]:
    pieces, last = [""], ""
    for letter in content:
        kind = "a" if letter.isalnum() or letter in "._-" else letter
        if kind == last == "a":
            pieces[-1] += letter
        else:
            pieces.append(letter)
        last = kind
    return pieces


def json_text(data: bytes, rng: Random) -> bytes:
    """JSON with values of other types, keys left out or doubled, or very deep; now and then no JSON at all."""
    kind = rng.randrange(12)
    if kind == 0:
        return text(data, rng)
    if kind == 1:
        depth = rng.choice([50, 500, 5000, 200_000])
        left, right = rng.choice([("[", "]"), ('{"a":', "}")])
        return (left * depth + "0" + right * depth).encode()
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return raw(data, rng)
    holder = [tree]
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        _change_tree(holder, rng)
    try:
        return json.dumps(holder[0]).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return raw(data, rng)


def _change_tree(tree: Any, rng: Random) -> None:
    """One node of a tree of lists and dictionaries changed in place; each as likely, whatever its depth."""
    places: list[tuple[Any, Any]] = []
    stack = [tree]
    while stack and len(places) < 5000:
        node = stack.pop()
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                stack.append(node[key])
    node, key = rng.choice(places)
    kind = rng.randrange(8)
    if kind == 0:
        del node[key]
        if not tree:
            tree.append(scalar(rng))
    elif kind == 1 and isinstance(node[key], list):
        node[key] = node[key] * rng.choice([2, 1000 // (1 + len(node[key]))])
    elif kind == 2:
        other, its = rng.choice(places)
        if isinstance(other, dict) == (its in other if isinstance(other, dict) else False) or its in range(len(other)):
            node[key] = json.loads(json.dumps(other[its]))
    elif kind == 3 and isinstance(node, dict):
        node[str(scalar(rng))[:50]] = node[key]
    elif kind == 4 and isinstance(node[key], int | float) and not isinstance(node[key], bool):
        node[key] = rng.choice([node[key] + 1, -node[key], node[key] * 10**6, node[key] * 10**9, node[key] * 2])
    else:
        node[key] = scalar(rng)


def csv_text(data: bytes, rng: Random) -> bytes:
    """A table with odd cells, rows or columns."""
    kind = rng.randrange(8)
    if kind == 0:
        return text(data, rng)
    if kind == 1:
        return data.replace(b",", rng.choice([b";", b"\t", b",,", b',"']), rng.choice([1, 3, -1]))
    rows = [line.split(",") for line in data.decode("utf-8", "replace").split("\n")]
    for _ in range(rng.choice([1, 1, 2, 4])):
        row = rng.choice(rows[: rng.choice([1, len(rows)])])
        if not row:
            continue
        place = rng.randrange(len(row))
        kind = rng.randrange(5)
        if kind == 0:
            del row[place]
        elif kind == 1:
            row.insert(place, rng.choice(WORDS))
        elif kind == 2:
            rows.append(list(row))
        else:
            row[place] = rng.choice([rng.choice(PATHS), rng.choice(WORDS), "x" * 200_000, "0", "1"])
    return "\n".join(",".join(row) for row in rows).encode("utf-8", "surrogatepass")


# folders

BY_SUFFIX: dict[str, Callable[[bytes, Random], bytes]] = {
    ".json": json_text,
    ".geojson": json_text,
    ".csv": csv_text,
    ".toml": text,
    ".txt": text,
    ".tif": tiff,
    ".svs": tiff,
}


def content(path: Path, rng: Random) -> None:
    """Change what a file holds, by what it is."""
    change = BY_SUFFIX.get(path.suffix, raw) if rng.random() < 0.85 else raw
    path.write_bytes(change(path.read_bytes(), rng))


def place(path: Path, rng: Random, outside: Path) -> None:
    """Put something else where a file is: a link out of the folder, a loop, a pipe, a folder, nothing."""
    kind = rng.randrange(7)
    if kind == 0:
        path.rename(path.with_name(rng.choice(["a\nb", "[1 0 1].png", "é", "x" * 200, "[9].png"]) + path.suffix))
        return
    path.unlink()
    if kind == 1:
        path.symlink_to(outside)
    elif kind == 2:
        path.symlink_to(path.name)
    elif kind == 3:
        os.mkfifo(path)
    elif kind == 4:
        path.mkdir()
    elif kind == 5:
        path.write_bytes(b"")


def folder(root: Path, rng: Random, outside: Path) -> None:
    """Change one to three files of a folder; those that say what the others are, more often."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    telling = [path for path in files if path.suffix in (".json", ".csv", ".toml")]
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        path = rng.choice(telling if telling and rng.random() < 0.6 else files)
        if not path.is_file() or path.is_symlink():
            continue
        if rng.random() < 0.1:
            place(path, rng, outside)
        elif rng.random() < 0.05 and (other := rng.choice(files)) != path and other.is_file():
            path.write_bytes(other.read_bytes())
        else:
            content(path, rng)
