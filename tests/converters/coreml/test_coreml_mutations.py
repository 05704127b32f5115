"""Core ML packages from strangers: whatever is wrong with the bytes, what comes of them is an answer or one line."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import pytest
from small_text import text_inputs

from edgeformer.convert.target import PRECISIONS
from edgeformer.models.family import Program
from edgeformer_converters.checks import Lowered
from edgeformer_converters.coreml.converter import PACKAGE, CoreMLConverter
from edgeformer_converters.mil.interpreter import run
from edgeformer_converters.mil.program import PACKAGE_DATA, PACKAGE_MODEL, read_program
from edgeformer_runtime.errors import EdgeFormerError, InputError

pytestmark = [pytest.mark.coreml, pytest.mark.slow]

MUTATIONS = 150


@pytest.fixture(scope="module")
def package(programs: tuple[Program, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    unused = Lowered(folder, (), {}, {}, None)
    CoreMLConverter().lower_precision(programs[:1], unused, PRECISIONS["palette4"], folder)
    return folder / PACKAGE


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Bytes with a few bits turned, a piece gone, doubled or moved."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = rng.randrange(len(changed))
        match rng.randrange(4):
            case 0:
                changed[place] ^= 1 << rng.randrange(8)
            case 1:
                changed[place] = rng.choice((0, 1, 127, 128, 255))
            case 2:
                del changed[place : place + rng.randrange(1, 9)]
            case _:
                changed[place:place] = changed[place : place + rng.randrange(1, 9)]
    return bytes(changed)


def test_mutations_end_in_one_line(package: Path, programs: tuple[Program, ...], tmp_path: Path) -> None:
    rng = random.Random(0)
    inputs = text_inputs(programs[0])
    refused = 0
    for number in range(MUTATIONS):
        copy = tmp_path / f"{number}.mlpackage"
        shutil.copytree(package, copy)
        target = copy / PACKAGE_DATA / (PACKAGE_MODEL if number % 4 else "weights/weight.bin")
        target.write_bytes(mutated(target.read_bytes(), rng))
        begun = time.monotonic()
        try:
            run(copy, inputs)
        except EdgeFormerError as error:
            assert "\n" not in str(error)
            refused += 1
        assert time.monotonic() - begun < 60
        shutil.rmtree(copy)
    assert refused > MUTATIONS // 4


@pytest.mark.parametrize("name", ["../../../secret", "/etc/hostname", "weights/../../../../secret", "link.bin"])
def test_weights_outside_of_the_package_are_not_read(package: Path, tmp_path: Path, name: str) -> None:
    from coremltools.proto import Model_pb2

    copy = tmp_path / "copy.mlpackage"
    shutil.copytree(package, copy)
    folder = copy / PACKAGE_DATA
    shutil.copy(folder / "weights" / "weight.bin", tmp_path / "secret")
    (folder / "link.bin").symlink_to(tmp_path / "secret")
    model = Model_pb2.Model.FromString((folder / PACKAGE_MODEL).read_bytes())
    for function in model.mlProgram.functions.values():
        for operation in function.block_specializations[function.opset].operations:
            for value in operation.attributes.values():
                if value.WhichOneof("value") == "blobFileValue":
                    value.blobFileValue.fileName = f"@model_path/{name}"
    (folder / PACKAGE_MODEL).write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="a weight's file"):
        read_program(copy)
