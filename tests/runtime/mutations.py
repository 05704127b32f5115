"""Ways to corrupt a bundle, drawn from a seeded generator: bytes, JSON values, tensor headers, names, zip headers."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

from edgeformer_runtime.bundle.manifest import MANIFEST_NAME
from edgeformer_runtime.bundle.strict_json import check_name
from edgeformer_runtime.errors import BundleError

Files = dict[str, bytes]
"""The content of a bundle by name."""

HOSTILE_NAMES = (
    "../outside.bin",
    "vectors/../../outside.bin",
    "/tmp/outside.bin",
    "C:/outside.bin",
    "a\\b",
    "nul.txt",
    "a" * 300,
    "/".join("a" * 20),
    "model.bin/x",
    "MANIFEST.json",
    "manifest.sig",
    "é",
    "",
    ".",
    "x\n",
    "\0",
)
HOSTILE_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    7,
    1 << 15,
    (1 << 31) - 1,
    1 << 31,
    1 << 53,
    1 << 64,
    10**40,
    -(10**40),
    0.0,
    -0.0,
    0.5,
    1e-320,
    1e308,
    "",
    "x",
    "\0",
    "\ud800",
    "🦜" * 50,
    "x" * 5000,
    [],
    {},
    [[]],
    {"": {}},
    [0] * 3000,
    *HOSTILE_NAMES[:6],
)


def corrupted(files: Files, generator: Random) -> Files:
    """A bundle's files with one to three changes; half of the time its hashes are made to agree again."""
    files = dict(files)
    for _ in range(generator.choice((1, 1, 1, 2, 3))):
        name = generator.choice(sorted(files))
        generator.choice(CHANGES)(files, name, generator)
    if generator.random() < 0.5:
        reseal(files)
    return files


def reseal(files: Files) -> None:
    """Make the manifest list what is there, if it still is a manifest."""
    try:
        manifest = json.loads(files[MANIFEST_NAME])
        manifest["files"] = {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            for name, data in files.items()
            if name != MANIFEST_NAME
        }
        files[MANIFEST_NAME] = json.dumps(manifest).encode()
    except (KeyError, ValueError, TypeError, RecursionError):
        return


def zipped(files: Files) -> bytes:
    """A stored zip of files, hostile names included."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in sorted(files.items()):
            # Through ZipInfo alone, zipfile would cut a name at a NUL and turn backslashes round on Windows.
            info = zipfile.ZipInfo("x")
            info.filename = name or "x"
            archive.writestr(info, data)
    return buffer.getvalue()


def corrupted_zip(data: bytes, generator: Random) -> bytes:
    """A zip with one change, often in a header."""
    corrupted = bytearray(data)
    signatures = [b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"]
    kind = generator.randrange(6)
    if kind < 3:  # a field of a header
        signature = signatures[kind]
        starts = [at for at in range(len(data) - 4) if data.startswith(signature, at)]
        at = generator.choice(starts) + generator.randrange(4, 46)
        field = generator.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\x7f", generator.randbytes(2)))
        corrupted[at : at + len(field)] = field
    elif kind == 3:
        return data[: generator.randrange(len(data))]
    elif kind == 4:
        return data[generator.randrange(len(data)) :]
    else:  # something between, or behind
        at = generator.randrange(len(data) + 1)
        corrupted[at:at] = generator.randbytes(generator.choice((1, 22, 3000)))
    return bytes(corrupted)


def _flip(files: Files, name: str, generator: Random) -> None:
    data = bytearray(files[name])
    for _ in range(generator.randrange(1, 9) if data else 0):
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    files[name] = bytes(data)


def _overwrite(files: Files, name: str, generator: Random) -> None:
    """A number where the format may keep a count, an offset or a length."""
    data = bytearray(files[name])
    number = generator.choice((0, 1, -1, 0x7FFFFFFF, -0x80000000, 0x10000, generator.randrange(1 << 31)))
    if len(data) >= 4:
        at = generator.randrange(len(data) - 3)
        data[at : at + 4] = struct.pack("<i", number)
    files[name] = bytes(data)


def _truncate(files: Files, name: str, generator: Random) -> None:
    files[name] = files[name][: generator.randrange(len(files[name]) + 1)]


def _extend(files: Files, name: str, generator: Random) -> None:
    files[name] += generator.choice((b"\0", b"\n", generator.randbytes(100), files[name]))


def _swap(files: Files, name: str, generator: Random) -> None:
    other = generator.choice(sorted(files))
    files[name], files[other] = files[other], files[name]


def _remove(files: Files, name: str, generator: Random) -> None:  # noqa: ARG001
    if len(files) > 1:
        del files[name]


def _rename(files: Files, name: str, generator: Random) -> None:
    files[generator.choice(HOSTILE_NAMES)] = files.pop(name) if generator.random() < 0.5 else b"evil"


def _edit_json(files: Files, name: str, generator: Random) -> None:
    """Change a value of a JSON file; the manifest's, where the file is none."""
    for candidate in (name, MANIFEST_NAME):
        try:
            value = json.loads(files[candidate])
        except (KeyError, ValueError, RecursionError):
            continue
        files[candidate] = _text(edited(value, generator))
        return


def _edit_header(files: Files, name: str, generator: Random) -> None:  # noqa: ARG001
    """Change a value in the header of a safetensors file."""
    tensors = [each for each in sorted(files) if each.endswith(".safetensors")]
    for candidate in tensors:
        data = files[candidate]
        length = int.from_bytes(data[:8], "little")
        try:
            header = json.loads(data[8 : 8 + length])
        except (ValueError, RecursionError):
            continue
        text = _text(edited(header, generator))
        files[candidate] = len(text).to_bytes(8, "little") + text + data[8 + length :]


def _deep(files: Files, name: str, generator: Random) -> None:
    depth = generator.choice((31, 33, 1000, 200_000))
    opening, closing = generator.choice(((b"[", b"]"), (b'{"a":', b"}")))
    files[name] = opening * depth + b"1" + closing * depth


CHANGES: tuple[Callable[[Files, str, Random], None], ...] = (
    _flip,
    _flip,
    _overwrite,
    _truncate,
    _extend,
    _swap,
    _remove,
    _rename,
    _edit_json,
    _edit_json,
    _edit_json,
    _edit_json,
    _edit_json,
    _edit_header,
    _deep,
)


def _garble(files: Files, name: str, generator: Random) -> None:
    """Noise in place of some of the content."""
    data = bytearray(files[name])
    length = min(len(data), generator.choice((40, 200, 1000)))
    at = generator.randrange(len(data) - length + 1)
    data[at : at + length] = generator.randbytes(length)
    files[name] = bytes(data)


MODEL_CHANGES: dict[str, tuple[Callable[[Files, str, Random], None], ...]] = {
    "lies": (_flip, _flip, _overwrite, _overwrite, _truncate),
    "corrupted": (_garble, _truncate),
}
"""What is done to a model file: single numbers that may leave it well-formed, or damage that does not."""


def edited(value: Any, generator: Random) -> Any:
    """A JSON value with one change somewhere inside."""
    places = [place for place in _containers(value) if place]
    if not places:
        return generator.choice(HOSTILE_VALUES)
    container = generator.choice(places)
    key = generator.choice(sorted(container) if isinstance(container, dict) else range(len(container)))
    old = container[key]
    kind = generator.randrange(5)
    if kind == 0 and isinstance(container, dict):
        del container[key]
    elif kind == 1 and isinstance(container, dict):
        container[generator.choice(("x", "", "kind", *HOSTILE_NAMES))] = old
    elif kind == 1:
        container.append(old)
    elif kind == 2 and isinstance(old, (int, float)):
        container[key] = generator.choice((old + 1, old - 1, -old, old * 1000, old / 3, str(old)))
    else:
        container[key] = generator.choice(HOSTILE_VALUES)
    return value


def _containers(value: Any) -> list[Any]:
    found, stack = [], [value]
    while stack:
        item = stack.pop()
        if isinstance(item, (dict, list)):
            found.append(item)
            stack += item.values() if isinstance(item, dict) else item
    return found


def _text(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def usable_in_a_folder(name: str) -> bool:
    """Whether a test may write a file of that name without leaving its folder."""
    try:
        check_name(name)
    except BundleError:
        return False
    return True
