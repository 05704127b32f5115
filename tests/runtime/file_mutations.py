"""Ways to corrupt one file of a bundle that keep it well-formed: the content changes, not the encoding.

`mutations.py` flips and cuts bytes; most of that ends at a reader's first check. Here protobuf messages are taken apart
and put together again with right lengths, flatbuffers keep their layout, images and audio are of every codec.
"""

from __future__ import annotations

import copy
import io
import json
import struct
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import soundfile
from mutations import MODEL_CHANGES, Files, edited
from PIL import Image

from edgeformer_runtime.bundle.manifest import MANIFEST_NAME

OUTSIDE = ("../outside.bin", "../../outside.bin", "/etc/passwd", "/etc/hostname", "@model_path/../outside.bin")
"""Files that no bundle may read; the first two lie beside it."""
NUMBERS = (0, 1, 2, 3, 7, 8, 127, 128, 255, 1 << 15, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 62,
           (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip
OPERATORS = ("If", "Loop", "Scan", "ConstantOfShape", "Expand", "Tile", "Range", "Resize", "Pad", "Gather", "GatherND",
             "ScatterND", "Slice", "Split", "Reshape", "NonZero", "OneHot", "TopK", "CumSum", "Einsum", "Identity",
             "while_loop", "cond", "fill", "tile", "expand_dims", "custom_layer", "make_list", "list_read")  # fmt: skip
MAX_DEPTH = 12

Change = Callable[[Files, str, Random], None]

# A protobuf message: its fields in order, each [number, wire type, value]; the value is an int, bytes, or a message.
Message = list[list[Any]]


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("too long a number")


def read_message(data: bytes, depth: int = 0) -> Message:
    """Take a message apart; what is no message inside stays bytes.

    Raises:
        ValueError, IndexError: it is none.
    """
    fields: Message = []
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        number, wire = key >> 3, key & 7
        if not 0 < number < 4000:
            raise ValueError("no field has that number")
        value: Any
        if wire == 0:
            value, at = _read_varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            value, at = data[at : at + size], at + size
        elif wire == 2:
            size, at = _read_varint(data, at)
            value, at = data[at : at + size], at + size
            if len(value) != size:
                raise ValueError("it ends too early")
            value = _inner(value, depth)
        else:
            raise ValueError("groups are not used")
        fields.append([number, wire, value])
    if at != len(data):
        raise ValueError("it ends too early")
    return fields


def _inner(value: bytes, depth: int) -> bytes | Message:
    if depth >= MAX_DEPTH or len(value) < 2 or (value.isascii() and value.decode().isprintable()):
        return value
    try:
        return read_message(value, depth + 1)
    except (ValueError, IndexError):
        return value


def _varint(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 64) - 1
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_message(fields: Message) -> bytes:
    """The bytes of a message."""
    out = bytearray()
    for number, wire, value in fields:
        out += _varint(number << 3 | wire)
        if wire == 0:
            out += _varint(value)
        elif wire == 2:
            content = write_message(value) if isinstance(value, list) else value
            out += _varint(len(content)) + content
        else:
            out += value
    return bytes(out)


def _edit_message(files: Files, name: str, generator: Random) -> None:
    """Change a field somewhere in a protobuf message."""
    try:
        message = read_message(files[name])
    except (ValueError, IndexError):
        return
    all_messages: list[Message] = []
    stack = [message]
    while stack:
        each = stack.pop()
        if each:
            all_messages.append(each)
            stack += [value for _, _, value in each if isinstance(value, list)]
    if not all_messages:
        return
    _edit_field(generator.choice(all_messages), all_messages, generator)
    files[name] = write_message(message)


def _edit_field(chosen: Message, all_messages: list[Message], generator: Random) -> None:
    at = generator.randrange(len(chosen))
    number, wire, value = chosen[at]
    kind = generator.randrange(8)
    if kind == 0:
        del chosen[at]
    elif kind == 1:
        chosen.insert(at, copy.deepcopy(chosen[at]))
    elif kind == 2:  # what another message has there
        other = generator.choice(all_messages)
        chosen[at] = copy.deepcopy(generator.choice(other))  # a copy: one that holds this field would have no end
    elif wire == 0:
        chosen[at][2] = generator.choice((*NUMBERS, value + 1, value - 1, value * 1000))
    elif isinstance(value, bytes):
        chosen[at][2] = _other_bytes(value, wire, generator)
    elif kind == 3 and value:
        chosen[at][2] = value[: generator.randrange(len(value))]
    elif kind == 4:
        chosen[at][2] = value * generator.choice((2, 100))
    else:
        chosen.append([generator.choice((number, generator.randrange(1, 40))), wire, value])


def _other_bytes(value: bytes, wire: int, generator: Random) -> bytes:
    if wire != 2:
        return generator.choice((bytes(len(value)), b"\xff" * len(value), generator.randbytes(len(value))))
    text = generator.choice((*OUTSIDE, *OPERATORS, "", "x" * 1000)).encode()
    packed = b"".join(_varint(generator.choice(NUMBERS)) for _ in range(generator.randrange(1, 5)))
    longer = value + value[: generator.randrange(1, 9)]
    shorter = value[: generator.randrange(len(value) + 1)]
    return generator.choice((text, text, packed, longer, shorter, generator.randbytes(len(value))))


def _edit_table(files: Files, name: str, generator: Random) -> None:
    """Change numbers of a flatbuffer that look like offsets, counts, sizes or indices."""
    data = files[name]
    words = np.frombuffer(data[: len(data) // 4 * 4], "<i4")
    places = np.flatnonzero((words > -len(data)) & (words < len(data)) & (words != 0))
    if not len(places):
        return
    corrupted = bytearray(data)
    for _ in range(generator.choice((1, 1, 1, 2, 5))):
        at = int(places[generator.randrange(len(places))])
        old = int(words[at])
        other = int(words[places[generator.randrange(len(places))]])
        value = generator.choice(
            (0, -1, 1, 0x7FFFFFFF, -0x80000000, old + 1, old - 1, old * 2, -old, old + 4, other, other)
        )
        struct.pack_into("<I", corrupted, 4 * at, value & 0xFFFFFFFF)
    files[name] = bytes(corrupted)


def _edit_small(files: Files, name: str, generator: Random) -> None:
    """Change small numbers of a flatbuffer: kinds of tensors and operators, axes, options."""
    data = np.frombuffer(files[name], np.uint8)
    places = np.flatnonzero((data > 0) & (data < 64))
    corrupted = bytearray(files[name])
    for _ in range(generator.choice((1, 2, 4)) if len(places) else 0):
        corrupted[int(places[generator.randrange(len(places))])] = generator.randrange(128)
    files[name] = bytes(corrupted)


def _edit_inside(files: Files, name: str, generator: Random) -> None:
    """Change a value of a JSON file."""
    try:
        files[name] = json.dumps(edited(json.loads(files[name]), generator)).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return


PATTERNS = (
    "(a*)*b",
    "(?=a)",
    "[",
    "a{1000}{1000}",
    "(?:x+x+)+y",
    "\\p{L}*",
    "",
    "(a|b|ab)*c",
    ".*.*.*=.*",
    "(?<!a{2,3})x",
)
"""Regular expressions that take for ever, need much memory, or are none."""


def _edit_tokenizer(files: Files, name: str, generator: Random) -> None:
    """Put a step into a tokenizer that its library may choke on."""
    pattern = {generator.choice(("Regex", "String")): generator.choice(PATTERNS)}
    content = "ab" * generator.choice((0, 1, 500, 100_000))
    steps: tuple[tuple[str, Any], ...] = (
        ("normalizer", {"type": "Replace", "pattern": pattern, "content": content}),
        ("pre_tokenizer", {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}),
        ("normalizer", {"type": "Precompiled", "precompiled_charsmap": generator.choice(("", "AAAA", "//w=" * 50))}),
        ("decoder", {"type": "Strip", "content": " ", "start": 1 << 31, "stop": 1 << 31}),
        ("truncation", {"direction": "Right", "max_length": generator.choice((0, 1, 1 << 40)),
                        "strategy": "LongestFirst", "stride": generator.choice((0, 7, 1 << 40))}),
        ("padding", {"strategy": {"Fixed": generator.choice((0, 1 << 20, 1 << 40))}, "direction": "Right",
                     "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}),
        ("post_processor", {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 40,
                            "pair": [], "special_tokens": {}}),
        ("added_tokens", [{"id": number, "content": "x" * (number + 1), "single_word": False, "lstrip": True,
                           "rstrip": True, "normalized": True, "special": False} for number in range(50)]),
    )  # fmt: skip
    try:
        document = json.loads(files[name])
    except (ValueError, RecursionError):
        return
    if not isinstance(document, dict):
        return
    key, step = generator.choice(steps)
    if generator.random() < 0.3 and key in ("normalizer", "pre_tokenizer"):
        inner = "normalizers" if key == "normalizer" else "pretokenizers"
        step = {"type": "Sequence", inner: [step] * generator.choice((2, 31, 40))}
    document[key] = step
    files[name] = json.dumps(document).encode()


def _other_image(files: Files, name: str, generator: Random) -> None:
    """The image in another format, often with a corrupted head, or a PNG that lies about its size."""
    try:
        image = Image.open(io.BytesIO(files[name])).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return
    buffer = io.BytesIO()
    image.save(
        buffer, generator.choice(("PNG", "PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA", "PCX"))
    )
    data = bytearray(buffer.getvalue())
    if data.startswith(b"\x89PNG") and generator.random() < 0.7:
        sizes = [generator.choice((1, 3, 1000, 20_000, 60_000, 1 << 30)) for _ in range(2)]
        struct.pack_into(">II", data, 16, *sizes)
        if generator.random() < 0.5:
            data[24:29] = bytes(generator.choice((0, 1, 2, 3, 4, 6, 8, 16)) for _ in range(5))
        struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    else:
        _spoil_head(data, generator, 600)
    files[name] = bytes(data)


def _other_audio(files: Files, name: str, generator: Random) -> None:
    """The audio in another format, rate or length, often with a corrupted head."""
    try:
        samples, _ = soundfile.read(io.BytesIO(files[name]), dtype="float32")
    except (RuntimeError, TypeError):
        return
    form, subtype = generator.choice(
        (("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "PCM_U8"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", None),
         ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("W64", "PCM_16"), ("RF64", "PCM_16"), ("CAF", "ALAC_16"))
    )  # fmt: skip
    rate = generator.choice((8000, 16000, 44100, 48000))
    buffer = io.BytesIO()
    soundfile.write(buffer, samples[: generator.choice((0, 1, 100, len(samples)))], rate, format=form, subtype=subtype)
    data = bytearray(buffer.getvalue())
    _spoil_head(data, generator, 60)
    files[name] = bytes(data)


def _spoil_head(data: bytearray, generator: Random, length: int) -> None:
    for _ in range(generator.choice((0, 1, 1, 3)) if len(data) > 8 else 0):
        at = generator.randrange(min(len(data), length) - 4)
        size = generator.choice((1, 2, 4))
        data[at : at + size] = generator.choice(
            (b"\xff" * size, b"\0" * size, b"\x7f" * size, generator.randbytes(size))
        )


_BYTES: tuple[Change, ...] = (*MODEL_CHANGES["lies"], *MODEL_CHANGES["corrupted"])
_JSON: tuple[Change, ...] = (_edit_inside,) * 6

# What is done to each kind of file; the first that the name fits counts.
KINDS: dict[str, tuple[tuple[str, ...], tuple[Change, ...]]] = {
    "manifest": ((MANIFEST_NAME,), _JSON),
    "tokenizer": (("tokenizer.json",), (*_JSON, *(_edit_tokenizer,) * 4, *_BYTES[:2])),
    "cases": (("cases.json",), (*_JSON, *_BYTES[:2])),
    "tensors": ((".safetensors",), _BYTES),
    "image": ((".png", ".jpg"), (_other_image, _other_image, *_BYTES)),
    "audio": ((".wav", ".flac"), (_other_audio, _other_audio, *_BYTES)),
    "protobuf": ((".onnx", ".mlmodel"), (*(_edit_message,) * 10, *_BYTES)),
    "flatbuffer": ((".tflite", ".pte"), (*(_edit_table,) * 6, *(_edit_small,) * 4, *_BYTES)),
    "weights": ((".onnx.data", "weight.bin"), _BYTES),
    "json": ((".json",), _JSON),
}
MODEL_KINDS = ("protobuf", "flatbuffer", "weights")


def kind_of(name: str) -> str | None:
    """The kind of a bundle's file."""
    return next((kind for kind, (ends, _) in KINDS.items() if name.endswith(ends)), None)


def corrupt_file(files: Files, name: str, generator: Random) -> None:
    """One to four changes to one file."""
    kind = kind_of(name)
    changes = _BYTES if kind is None else KINDS[kind][1]
    for _ in range(generator.choice((1, 1, 2, 4))):
        generator.choice(changes)(files, name, generator)
