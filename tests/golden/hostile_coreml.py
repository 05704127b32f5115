"""Core ML packages that a reader refuses, one rule broken in each, and their sound neighbours.

The messages are written field by field (Model.proto and MIL.proto), as coremltools takes long to import.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.golden.hostile_case import Case

Field = tuple[int, int | str | bytes]

FLOAT32, STRING = 11, 2
OPSET = "CoreML7"
WEIGHTS = "@model_path/weights/weight.bin"
_FOLDER = "Data/com.apple.CoreML"
PATHS = ("com.apple.CoreML/model.mlmodel", "com.apple.CoreML/weights")
PROGRAM = 502


@dataclass(frozen=True)
class _Model:
    """What can be said otherwise of y = x + w, whose w lies in the file of weights.

    Attributes:
        function: its name.
        opset: of the function; its block's stays.
        input_type, weight_type, output_type: of x, w and y.
        weight: how w is given.
        operator: the sum's name.
        reads: its second operand.
        gives: its result.
        blocks: what the sum runs beside.
        outputs: those of the block.
        more_blocks, more: further fields of the function and of the model.
    """

    function: str = "main"
    opset: str = OPSET
    input_type: bytes = b""
    weight_type: bytes = b""
    output_type: bytes = b""
    weight: tuple[Field, ...] = ()
    operator: str = "add"
    reads: str = "w"
    gives: str = "y"
    blocks: tuple[Field, ...] = ()
    outputs: tuple[str, ...] = ("y",)
    more_blocks: tuple[Field, ...] = ()
    more: tuple[Field, ...] = ()

    def to_bytes(self) -> bytes:
        """The model's file."""
        value = _message((2, self.weight_type or _tensor(4)), *(self.weight or (_blob(),)))
        constant = _message((1, "const"), (3, _named("w", self.weight_type)), (5, _entry("val", value)))
        operands = [
            (2, _entry(key, _message((1, _message((1, name)))))) for key, name in (("x", "x"), ("y", self.reads))
        ]
        addition = _message((1, self.operator), *operands, (3, _named(self.gives, self.output_type)), *self.blocks)
        block = _message(*((2, name) for name in self.outputs), (3, constant), (3, addition))
        function = _message(
            (1, _named("x", self.input_type)), (2, self.opset), (3, _entry(OPSET, block)), *self.more_blocks
        )
        program = _message((1, 1), (2, _entry(self.function, function)))
        return _message((1, 8), (PROGRAM, program), *self.more)


def cases() -> Iterator[Case]:
    """All of them."""
    sound = _Model()
    yield _case("sound", sound, True)
    for name, model in _models():
        yield _case(name, model, False)
    yield _case("an operator that is not listed", sound, False, operators={})
    yield _case("another input than declared", sound, False, inputs=[5])
    for name, data in _weight_files():
        yield _case(f"weights: {name}", sound, False, weights=data)
    yield _case("weights: none", sound, False, weights=None)
    yield _case("a file more", sound, False, more={f"{_FOLDER}/weights/more.bin": b"x"})
    yield _case("a manifest that names another file", sound, False, paths=("../../../etc/passwd",))
    yield _case("a manifest that is none", sound, False, more={"Manifest.json": b"{}"})
    data = sound.to_bytes()
    for name, changed in {
        "cut off": data[:-3],
        "no bytes": b"",
        "a group": data + b"\x0b\x0c",
        "a length beyond the file": data + _varint(PROGRAM << 3 | 2) + b"\xff\xff\xff\xff\x0f",
        "two programs": data + _message((PROGRAM, b"")),
        "a number without end": data + b"\x08" + b"\xff" * 11,
    }.items():
        yield _case(f"a model: {name}", sound, False, more={f"{_FOLDER}/model.mlmodel": changed})


def _models() -> Iterator[tuple[str, _Model]]:
    sound = _Model()
    yield "an unknown operator", replace(sound, operator="custom_layer")
    yield "a loop", replace(sound, operator="while_loop", blocks=((4, _message((2, "y"))),))
    yield "an operator that runs a block", replace(sound, blocks=((4, _message((2, "y"))),))
    yield "a value that nothing makes", replace(sound, reads="z")
    yield "a value made twice", replace(sound, gives="w")
    yield "an output that nothing makes", replace(sound, outputs=("y", "z"))
    yield "no block of its opset", replace(sound, opset="CoreML99")
    yield "two blocks", replace(sound, more_blocks=((3, _entry("CoreML6", b"")),))
    yield "no function of that name", replace(sound, function="other")
    yield "a size that is not static", replace(sound, input_type=_tensor(unknown=True))
    yield "2^30 elements", replace(sound, output_type=_tensor(1 << 15, 1 << 15))
    yield "a negative size", replace(sound, output_type=_tensor((1 << 64) - 4))
    yield "nine axes", replace(sound, output_type=_tensor(*[1] * 9))
    yield "another rank than stated", replace(sound, output_type=_tensor(4, rank=3))
    yield "a text", replace(sound, input_type=_tensor(4, dtype=STRING))
    yield "an unknown type", replace(sound, output_type=_tensor(4, dtype=99))
    yield "a dictionary", replace(sound, input_type=_message((4, b"")))
    yield "weights in another file", replace(sound, weight=(_blob("/etc/passwd"),))
    yield "weights above", replace(sound, weight=(_blob("@model_path/../weight.bin"),))
    yield "weights behind the file", replace(sound, weight=(_blob(offset=1 << 40),))
    yield "weights at the file's end", replace(sound, weight=(_blob(offset=96),))
    yield "weights at another place", replace(sound, weight=(_blob(offset=65),))
    yield "weights at 2^64 - 64", replace(sound, weight=(_blob(offset=(1 << 64) - 64),))
    yield "weights of another size", replace(sound, weight_type=_tensor(5))
    yield "weights here and elsewhere", replace(sound, weight=(_blob(), (3, _numbers(4))))
    yield "weights nowhere", replace(sound, weight=((1, ""),))
    yield "numbers fewer than the shape", replace(sound, weight=((3, _numbers(3)),))
    state = _tensor(4)
    for _ in range(3000):
        state = _message((5, _message((1, state))))
    yield "states of states without end", replace(sound, input_type=state)
    yield "an updatable model", replace(sound, more=((10, 1),))
    for number, kind in (
        (202, "a pipeline"),
        (500, "a neural network"),
        (555, "a custom model"),
        (556, "a linked model"),
    ):
        yield kind, replace(sound, more=((number, b""),))


def _weight_files() -> Iterator[tuple[str, bytes]]:
    sound = _weight_file()
    yield "another sentinel", sound[:64] + bytes(4) + sound[68:]
    yield "another type", sound[:68] + struct.pack("<I", 1) + sound[72:]
    yield "more bytes than the shape", sound[:72] + struct.pack("<Q", 20) + sound[80:] + bytes(4)
    yield "bytes behind the file", sound[:80] + struct.pack("<Q", 1 << 40) + sound[88:]
    yield "an end that overflows", sound[:80] + struct.pack("<Q", (1 << 64) - 8) + sound[88:]
    yield "cut off", sound[:-1]


def _varint(number: int) -> bytes:
    digits = []
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])


def _message(*fields: Field) -> bytes:
    """Protobuf's wire format: integers, and texts and messages with their length."""
    text = b""
    for number, value in fields:
        if isinstance(value, int):
            text += _varint(number << 3) + _varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            text += _varint(number << 3 | 2) + _varint(len(data)) + data
    return text


def _entry(key: str, value: bytes) -> bytes:
    return _message((1, key), (2, value))


def _tensor(*shape: int, dtype: int = FLOAT32, rank: int | None = None, unknown: bool = False) -> bytes:
    sizes = [_message((2, b"")) if unknown else _message((1, _message((1, size)))) for size in shape or (0,)]
    return _message(
        (1, _message((1, dtype), (2, len(sizes) if rank is None else rank), *((3, each) for each in sizes)))
    )


def _named(name: str, kind: bytes) -> bytes:
    return _message((1, name), (2, kind or _tensor(4)))


def _blob(name: str = WEIGHTS, offset: int = 64) -> Field:
    return 5, _message((1, name), (2, offset))


def _numbers(count: int) -> bytes:
    return _message((1, _message((1, _message((1, bytes(4 * count)))))))


def _weight_file() -> bytes:
    """A header of 64 bytes, the metadata of one weight, and its four floats."""
    metadata = struct.pack("<IIQQ", 0xDEADBEEF, 2, 16, 128)
    return struct.pack("<II", 1, 2).ljust(64, b"\0") + metadata.ljust(64, b"\0") + struct.pack("<4f", 0, 1, 2, 3)


def _case(
    name: str,
    model: _Model,
    sound: bool,
    operators: dict[str, int] | None = None,
    inputs: list[int] | None = None,
    weights: bytes | None = b"",
    paths: tuple[str, ...] = PATHS,
    more: dict[str, bytes] | None = None,
) -> Case:
    manifest = {"itemInfoEntries": {str(number): {"path": path} for number, path in enumerate(paths)}}
    files = {"Manifest.json": json.dumps(manifest).encode(), f"{_FOLDER}/model.mlmodel": model.to_bytes()}
    if weights is not None:
        files[f"{_FOLDER}/weights/weight.bin"] = weights or _weight_file()
    files.update(more or {})
    named = {f"model.mlpackage/{key}": data for key, data in files.items()}
    stated = {"add": 1} if operators is None else operators
    return Case(f"coreml: {name}", "coreml", named, "main", inputs or [4], [4], stated, sound)
