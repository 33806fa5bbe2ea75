"""Ways to spoil a file: bytes of any format, and what stands in texts, JSON, archives, HDF5 and pickles."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.campaign.spoil_hdf5 import spoil_hdf5
from tests.support.model_folders import reseal

Spoil = Callable[[random.Random, Path], None]

_DEEP = 100_000
_NUMBERS = (0, -1, 1, 7, 0.5, -0.0, 1e308, -1e308, 1e-320, 2**31, -(2**31), 2**63, 2**64, 10**30, 1e400, -1e400,
            float("nan"))  # fmt: skip
_TEXTS = ("", " ", "x", "x" * 3000, "\ud800", "\0", "é\u2028ü", "../../x", "/etc/passwd", "nan", "1e999", "-",
          "\x1b[31m", "a\nb", "9" * 5000, "{}", "train", "v" * 255)  # fmt: skip


def hostile_value(rng: random.Random) -> Any:
    """Returns a value that a JSON field does not expect."""
    nested: Any = []
    for _ in range(rng.choice((2, 60))):
        nested = [nested]
    odd = (
        None,
        True,
        False,
        [],
        {},
        {"x": 1},
        [[[]]],
        nested,
        [1] * 5000,
        {str(n): n for n in range(300)},
        [None, "x", 1.5],
    )
    return rng.choice((rng.choice(_NUMBERS), rng.choice(_TEXTS), rng.choice(odd)))


# -- bytes ---------------------------------------------------------------------------------------------------------


def _span(rng: random.Random, size: int) -> tuple[int, int]:
    # headers are short and decide most
    limit = size if rng.random() < 0.6 else min(size, 600)
    start = rng.randrange(max(limit, 1))
    return start, min(size, start + rng.choice((1, 2, 4, 8, 16, 100, 1000)))


def flip_bit(rng: random.Random, data: bytearray) -> bytearray:
    """Flips one bit, or a few."""
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        if data:
            data[_span(rng, len(data))[0]] ^= 1 << rng.randrange(8)
    return data


def _cut(rng: random.Random, data: bytearray) -> bytearray:
    return data[: rng.randrange(len(data) + 1)]


def _remove(rng: random.Random, data: bytearray) -> bytearray:
    start, end = _span(rng, len(data))
    return data[:start] + data[end:]


def _repeat(rng: random.Random, data: bytearray) -> bytearray:
    start, end = _span(rng, len(data))
    return data[:end] + data[start:end] * rng.choice((1, 3)) + data[end:]


def _fill(rng: random.Random, data: bytearray) -> bytearray:
    start, end = _span(rng, len(data))
    return data[:start] + bytes([rng.choice((0, 255, 127, 128, 32))]) * (end - start) + data[end:]


def _insert(rng: random.Random, data: bytearray) -> bytearray:
    start, end = _span(rng, len(data))
    return data[:start] + rng.randbytes(end - start) + data[start:]


_PACKED = (("<I", 2**32 - 1), ("<I", 2**31), ("<Q", 2**64 - 1), ("<Q", 2**63 - 1), ("<Q", 2**40), ("<H", 65535),
           ("<I", 0), ("<Q", 0))  # fmt: skip


def _number(rng: random.Random, data: bytearray) -> bytearray:
    form, value = rng.choice(_PACKED)
    start, size = _span(rng, len(data))[0], struct.calcsize(form)
    return data[:start] + struct.pack(form, value) + data[start + size :]


def _swap(rng: random.Random, data: bytearray) -> bytearray:
    half = len(data) // 2
    first, second = rng.randrange(half + 1), half + rng.randrange(len(data) - half + 1)
    return data[second:] + data[first:second] + data[:first]


def _tail(rng: random.Random, data: bytearray) -> bytearray:
    return data + rng.choice((b"\0" * 512, b"\n", b"\r\n\x1a", rng.randbytes(70)))


def _noise(rng: random.Random, data: bytearray) -> bytearray:
    return bytearray(
        rng.choice((b"", b"\0", rng.randbytes(300), b"\0" * 3000, b"PK\x05\x06" + b"\0" * 18, b"\x89HDF\r\n\x1a\n"))
    )


_BYTES = (flip_bit, flip_bit, flip_bit, _cut, _remove, _repeat, _fill, _insert, _number, _number, _swap, _tail, _noise)


def spoil_bytes(rng: random.Random, path: Path) -> None:
    """Changes bytes of any file."""
    path.write_bytes(rng.choice(_BYTES)(rng, bytearray(path.read_bytes())))


def spoil_place(rng: random.Random, path: Path) -> None:
    """Puts something else in the place of a file."""
    kind = rng.choice(("folder", "pipe", "loop", "nowhere", "gone", "other", "device", "endless"))
    content = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "other":
        path.write_bytes(b"\x1f\x8b" + content)
    elif kind != "gone":
        targets = {"loop": path.name, "nowhere": "nothing", "device": "/dev/null", "endless": "/dev/zero"}
        path.symlink_to(targets[kind])


# -- texts and JSON ------------------------------------------------------------------------------------------------


def spoil_text(rng: random.Random, path: Path) -> None:
    """Changes lines and words of a text, or its encoding."""
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    kind = rng.randrange(9)
    if kind == 0:
        codes = ("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1", "utf-7")
        path.write_bytes(text.encode(rng.choice(codes), "replace"))
        return
    if kind == 1:
        text = text.replace("\n", rng.choice(("\r\n", "\r", "\n\n", "\u2028", "\0", "")))
    elif kind == 2:
        text = text.replace(
            rng.choice((" ", ",", '"', "[", "{", ":", "##", ".")), rng.choice(_TEXTS), rng.choice((1, 2, 100))
        )
    else:
        lines = text.split("\n")
        number = rng.randrange(len(lines))
        if kind == 3:
            lines[number] = lines[number] * rng.choice((0, 2, 500))
        elif kind == 4:
            lines.insert(number, rng.choice(_TEXTS))
        else:
            words = lines[number].split(" ")
            words[rng.randrange(len(words))] = str(rng.choice((*_TEXTS, *_NUMBERS)))
            lines[number] = " ".join(words)
        text = "\n".join(lines)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))


def _nodes(value: Any) -> list[tuple[Any, Any]]:
    """Returns (container, place in it) of everything inside a JSON value."""
    places = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [(value, place) for place, _ in places] + [pair for _, inner in places for pair in _nodes(inner)]


def spoil_json_value(rng: random.Random, value: Any) -> Any:
    """Changes, removes, adds or renames something within a JSON value."""
    nodes = _nodes(value)
    if not nodes or rng.random() < 0.06:
        return hostile_value(rng)
    container, place = rng.choice(nodes)
    kind = rng.randrange(8)
    if kind == 0:
        del container[place]
    elif kind == 1 and isinstance(container, dict):
        container[rng.choice(("", "x", "schedule", "features", "__class__", "a" * 2000))] = container.pop(place)
    elif kind == 2 and isinstance(container, list):
        container.extend([container[place]] * rng.choice((1, 3, 300)))
    elif kind == 3 and isinstance(container[place], int | float) and not isinstance(container[place], bool):
        container[place] = rng.choice(
            (str(container[place]), container[place] + 0.5, -container[place], [container[place]])
        )
    else:
        container[place] = hostile_value(rng)
    return value


def spoil_json(rng: random.Random, path: Path) -> None:
    """Changes the content of a JSON file, or of a line of JSON Lines; then the file is still JSON, nearly always."""
    text = path.read_text(encoding="utf-8")
    is_lines = path.suffix == ".jsonl"
    lines = text.splitlines() if is_lines else [text]
    number = rng.randrange(len(lines))
    kind = rng.random()
    if kind < 0.03:
        lines[number] = rng.choice(('{"a":', "[")) * _DEEP
    elif kind < 0.06:
        lines[number] = lines[number].replace("{", '{"step": 1, "step": 2, ', 1)
    elif kind < 0.09:
        lines[number] = lines[number].replace("1", "1" * 6000, 1)
    else:
        lines[number] = json.dumps(spoil_json_value(rng, json.loads(lines[number])))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogatepass")


def spoil_sealed(rng: random.Random, path: Path) -> None:
    """Changes a file of a model folder and makes the sha256 right again, as somebody hostile would."""
    if path.suffix == ".json":
        spoil_json(rng, path)
    elif path.suffix == ".safetensors":
        _spoil_safetensors(rng, path)
    else:
        spoil_bytes(rng, path)
    try:
        reseal(path.parent)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # so spoiled that there is nothing to seal
        return


def _spoil_safetensors(rng: random.Random, path: Path) -> None:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    if "words" in header.get("__metadata__", {}) and rng.random() < 0.5:
        words = spoil_json_value(rng, json.loads(header["__metadata__"]["words"]))
        header["__metadata__"]["words"] = json.dumps(words)
    else:
        header = spoil_json_value(rng, header)
    text = json.dumps(header).encode("utf-8", "replace")
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


# -- archives ------------------------------------------------------------------------------------------------------

_NPY_HEADERS = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 4), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (3, 4), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': 3, }",
    "{'descr': [('a', '<f4'), ('b', '|S4')], 'fortran_order': False, 'shape': (3,), }",
    "{'descr': '<c16', 'fortran_order': True, 'shape': (3, 4), }",
    "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (3, 4), }",
    "{'descr': '|V0', 'fortran_order': False, 'shape': (10000000000,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 10000000000000), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1,) * 99, }",
    "(" * 3000,
    "{'descr': '<U1000000', 'fortran_order': False, 'shape': (3, 4), }",
)


def spoil_npy(rng: random.Random, data: bytes) -> bytes:
    """Returns an npy file with another header."""
    header = rng.choice(_NPY_HEADERS).encode()
    return b"\x93NUMPY" + bytes([rng.choice((1, 2, 3, 9)), 0]) + struct.pack("<H", len(header)) + header + data[128:]


def _spoil_npy_file(rng: random.Random, path: Path) -> None:
    path.write_bytes(spoil_npy(rng, path.read_bytes()))


def spoil_zip(rng: random.Random, path: Path) -> None:
    """Changes a member of an archive, whose checksums are right afterwards, or the archive's table of contents."""
    with zipfile.ZipFile(path) as file:
        members = {info.filename: file.read(info) for info in file.infolist()}
    name = rng.choice(list(members))
    kind = rng.randrange(6)
    if kind == 0:
        members[name] = bytes(_BYTES[rng.randrange(len(_BYTES))](rng, bytearray(members[name])))
    elif kind == 1:
        members[name] = b"\0" * rng.choice((1 << 20, 200 << 20))
    elif kind == 2:
        del members[name]
    elif kind == 3:
        members[rng.choice(("../x", "x" * 300, "features.npy", "x/"))] = members.pop(name)
    elif kind == 4:
        members[name] = hostile_pickle(rng)
    else:
        members[name] = spoil_npy(rng, members[name])
    buffer = io.BytesIO()
    with zipfile.ZipFile(
        buffer, "w", rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_BZIP2))
    ) as file:
        for member, content in members.items():
            file.writestr(member, content)
    path.write_bytes(buffer.getvalue())


# -- pickles -------------------------------------------------------------------------------------------------------


def hostile_pickle(rng: random.Random) -> bytes:
    """Returns a pickle of nothing that a reader wants."""
    collide = [2**61 - 1, 2 * (2**61 - 1)]
    tuples = {tuple(rng.choice(collide) for _ in range(12)): n for n in range(4000)}
    strings = {"w2id": {"door": 0}, "id2vec": [[0.0] * 3], "counter": {"door": 1}}
    cases: list[Any] = [
        tuples,
        {**strings, "w2id": tuples},
        {**strings, "counter": {"door": 10**18}},
        {**strings, "id2vec": [strings] * 3},
        {"w2id": [], "id2vec": {}, "counter": 7},
        {frozenset([1, 2]): 3},
    ]
    raw = (
        b"\x80\x02" + b"(" * 200_000 + b".",
        b"\x80\x04" + b"]" + b"]\x94a" * 3000 + b".",
        b"\x80\x02" + b"]q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b".",
        b"\x80\x02]q\x00h\x00a.",
        b"\x80\x02}q\x00h\x00h\x00s.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fx.",
        b"cnumpy\ndtype\n(S'V1000000000'\ntR.",
        b"cnumpy\ndtype\n(S'M8[D]'\ntR.",
        b"cbuiltins\nbytearray\n(I1000000000\ntR.",
        b"ccollections\nCounter\n((lp0\ntR.",
        b"cos\nsystem\n(S'true'\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I-1\ntS'b'\ntR.",
        b"cnumpy\nndarray\n(I100000\nI100000\ntR.",
        b"\x80\x02" + b"K\x01" + b"\x85" * 100_000 + b".",
        b"\x80\x02(" + b"K\x01\x85" * 3 + b"\x8a\xff" + b"\x7f" * 255 + b"t.",
        b"S'caf\xc3\xa9'\n.",
        b"(dS'w2id'\n(dS'caf\xc3\xa9'\nI0\nssS'id2vec'\n((lF1.0\naasS'counter'\n(dS'caf\xc3\xa9'\nI1\nss.",
    )
    if rng.random() < 0.5:
        return rng.choice(raw)
    return pickle.dumps(rng.choice(cases), protocol=rng.choice((0, 2, 4, 5)))


def _replace_pickle(rng: random.Random, path: Path) -> None:
    path.write_bytes(hostile_pickle(rng))


# file ending -> what fits it besides bytes and places
KINDS: dict[str, tuple[Spoil, ...]] = {
    ".json": (spoil_json, spoil_json, spoil_json, spoil_text),
    ".jsonl": (spoil_json, spoil_json, spoil_text),
    ".txt": (spoil_text,),
    ".csv": (spoil_text,),
    ".h5": (spoil_hdf5,),
    ".hdf5": (spoil_hdf5,),
    ".npy": (_spoil_npy_file,),
    ".npz": (spoil_zip,),
    ".pt": (spoil_zip, _replace_pickle),
    ".pkl": (_replace_pickle,),
    ".safetensors": (),
}


def spoil(rng: random.Random, path: Path) -> str:
    """Spoils a file in one of all ways, and returns which."""
    in_model = path.parent.parent.name == "checkpoints"
    kinds: list[Spoil] = [
        *KINDS.get(path.suffix, ()),
        spoil_bytes,
        spoil_bytes,
        *([spoil_sealed] * 2 if in_model else []),
    ]
    chosen = spoil_place if rng.random() < 0.05 else rng.choice(kinds)
    chosen(rng, path)
    return chosen.__name__.strip("_")


def copy_into(folder: Path, source: Path) -> None:
    """Copies a file or folder of the material into a folder."""
    (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / source.name)
