"""A table has a row for each number that a bundle may hand it: engines differ in what they do where it has none."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mutations import reseal
from tiny_bundle import WORDS
from tiny_speech_bundle import manifest as speech_manifest

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import MANIFEST_NAME, ProgramSpec, TensorSpec
from edgeformer_runtime.engines import open_engine
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.model_files import Broken, Contents, IndexTrace
from edgeformer_runtime.model_files.executorch_file import check_executorch
from edgeformer_runtime.tasks.speech import AUDIO

FORMATS = pytest.mark.parametrize(
    "stating",
    [
        "tiny_onnx",
        pytest.param("tiny_litert", marks=pytest.mark.litert),
        pytest.param("tiny_executorch", marks=[pytest.mark.executorch, pytest.mark.slow]),
    ],
    indirect=True,
)
CHANNELS = 4


@pytest.fixture
def stating(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[int | None], Path]:
    """Makes the bundle of that format whose manifest states another size of the vocabulary."""

    def make(vocab_size: int | None) -> Path:
        folder = tmp_path / str(vocab_size)
        shutil.copytree(request.getfixturevalue(request.param), folder)
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        manifest = json.loads(files[MANIFEST_NAME])
        manifest["preprocessing"]["vocab_size"] = vocab_size
        files[MANIFEST_NAME] = json.dumps(manifest).encode()
        reseal(files)
        (folder / MANIFEST_NAME).write_bytes(files[MANIFEST_NAME])
        return folder

    return make


@FORMATS
def test_a_larger_vocabulary_than_the_table_is_refused(stating: Callable[[int | None], Path]) -> None:
    with Bundle.open(stating(len(WORDS) + 1)) as bundle:
        message = rf"input_ids\W* may be {len(WORDS)}, the model's table has {len(WORDS)} rows"
        with pytest.raises(BundleError, match=message):
            open_engine(bundle)


@FORMATS
def test_without_a_vocabulary_each_run_is_held_to_the_table(stating: Callable[[int | None], Path]) -> None:
    with Bundle.open(stating(None)) as bundle:
        engine = open_engine(bundle)
        program = bundle.manifest.programs[0]
        inputs = {spec.name: np.ones(spec.shape, spec.dtype) for spec in program.inputs}
        assert engine.run(program.name, inputs)
        for number in (len(WORDS), -1):
            inputs["input_ids"][0, 1] = number
            with pytest.raises(
                InputError, match=rf"input_ids: expected numbers from 0 to {len(WORDS) - 1}, .*{number}"
            ):
                engine.run(program.name, inputs)
        engine.close()


def test_a_table_of_one_row_is_held_to_it_at_each_run(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a BERT with type_vocab_size 1, whose tokenizer gives type 0 alone."""
    with Bundle.open(tiny_onnx) as bundle:
        program = bundle.manifest.programs[0]
        found = Contents(Counter(bundle.manifest.operators), {program.name: {"attention_mask": 1}})
        monkeypatch.setattr("edgeformer_runtime.model_files.read_contents", lambda _: found)
        engine = open_engine(bundle)
        inputs = {spec.name: np.ones(spec.shape, spec.dtype) for spec in program.inputs}
        with pytest.raises(InputError, match=r"attention_mask: expected numbers from 0 to 0, .*found 0 to 1"):
            engine.run(program.name, inputs)
        engine.close()


def test_speech_bounds_tokens_positions_and_slots() -> None:
    manifest = speech_manifest()
    head = manifest.postprocessing
    bucket = head.buckets[0]
    prefill, decode = (
        next(each for each in manifest.programs if each.name == name) for name in (bucket.prefill, bucket.decode)
    )
    assert AUDIO.largest(manifest, prefill, "tokens") == head.vocab_size - 1
    assert AUDIO.largest(manifest, decode, "token") == head.vocab_size - 1
    assert AUDIO.largest(manifest, decode, "position") == bucket.rows - 1
    assert AUDIO.largest(manifest, prefill, "wanted") == head.prefill_tokens - 1
    assert AUDIO.largest(manifest, prefill, "mask") is None


def test_numbers_are_followed_until_they_are_computed() -> None:
    trace = IndexTrace(["ids", "mask"])
    trace.move("ids", ["cast"])
    trace.move("sum", ["moved"])
    assert trace.index("cast", 8) == "ids"
    assert trace.index("ids", 12) == "ids"
    assert trace.index("moved", 3) is None
    trace.forget(["cast"])
    assert trace.index("cast", 2) is None
    assert trace.rows({"ids": "input_ids", "mask": "attention_mask"}) == {"input_ids": 8}


@pytest.mark.executorch
@pytest.mark.slow
class TestQuantizedTables:
    """ExecuTorch's kernel of an int8 table ends the process for a row that is not there."""

    @staticmethod
    def contents(index: Callable[[Any, Any], Any]) -> Contents:
        """Of a `.pte` with a table of eight rows, which `index` makes numbers for."""
        import executorch.exir.passes._quant_patterns_and_replacements  # noqa: F401  # registers the operator
        import torch
        from executorch.exir import to_edge

        class Table(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = torch.nn.Buffer(torch.zeros(8, CHANNELS, dtype=torch.uint8))
                self.scales, self.zeros = torch.nn.Buffer(torch.ones(8)), torch.nn.Buffer(torch.zeros(8))
                self.few, self.many = (torch.nn.Buffer(torch.arange(count)[None]) for count in (8, 12))

            def forward(self, ids: Any) -> Any:
                return torch.ops.quantized_decomposed.embedding_byte(
                    self.weight, self.scales, self.zeros, 0, 255, index(self, ids)
                )

        exported = torch.export.export(Table(), (torch.zeros(1, 2, dtype=torch.int64),))
        data = to_edge(exported).to_executorch().buffer
        shapes = SimpleNamespace(shape=(1, 2), dtype="int64", name="ids")
        output = TensorSpec("output", "float32", (1, 2, CHANNELS))
        program = ProgramSpec("run", "model.pte", "forward", (shapes,), (output,))  # type: ignore[arg-type]
        return check_executorch(memoryview(data), [program])

    def test_an_input_is_bounded(self) -> None:
        assert self.contents(lambda _, ids: ids.reshape(2, 1).reshape(1, 2)).rows == {"run": {"ids": 8}}

    def test_constants_are_looked_at(self) -> None:
        assert self.contents(lambda table, _: table.few[:, :2])
        with pytest.raises(Broken, match="takes a row of 8 by a number beyond them"):
            self.contents(lambda table, _: table.many[:, 10:])

    def test_computed_numbers_are_refused(self) -> None:
        with pytest.raises(Broken, match="neither an input's nor a small constant's"):
            self.contents(lambda _, ids: ids + 1)
