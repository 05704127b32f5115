"""The .pte says what torch says through ExecuTorch's own runtimes: recipes that delegate can still be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_text import cosine, reference, text_inputs

from edgeformer.convert.target import PRECISIONS
from edgeformer.models.family import Program
from edgeformer_converters.checks import Lowered
from edgeformer_converters.executorch.converter import MODEL_FILE, ExecuTorchConverter
from edgeformer_runtime.engines.executorch import Runtime

pytestmark = [pytest.mark.executorch, pytest.mark.slow]


def lower(programs: tuple[Program, ...], precision: str, folder: Path) -> Lowered:
    unused = Lowered(folder, (), {}, {}, None)
    return ExecuTorchConverter().lower_precision(programs, unused, PRECISIONS[precision], folder)


@pytest.fixture(scope="module")
def lowered(programs: tuple[Program, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Lowered]:
    """Both buckets in fp32, the smaller one at the other precisions: each method takes seconds."""
    return {
        name: lower(chosen, name, tmp_path_factory.mktemp(f"executorch-{name}"))
        for name, chosen in {"fp32": programs, "fp16": programs[:1], "dynamic-int8": programs[:1]}.items()
    }


def run(lowered: Lowered, program: Program, inputs: dict[str, Any], executorch: Runtime) -> Any:
    file, entry = lowered.entries[program.name]
    method = executorch.open(lowered.folder / file).load(entry)
    return method([inputs[spec.name] for spec in program.inputs])[0]


# fp16 rounds every intermediate result (relative 2^-11); int8 rounds weights per channel and activations per row.
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-6), ("fp16", 3e-3), ("dynamic-int8", 2e-2)])
def test_each_method_answers_as_torch_does(
    lowered: dict[str, Lowered],
    programs: tuple[Program, ...],
    executorch: Runtime,
    precision: str,
    tolerance: float,
) -> None:
    for program in (each for each in programs if each.name in lowered[precision].entries):
        inputs = text_inputs(program)
        expected = reference(program, inputs)
        got = run(lowered[precision], program, inputs, executorch)
        assert got.dtype == np.float32
        assert np.abs(got - expected).max() < tolerance
        assert cosine(got, expected) > 0.9995


@pytest.mark.parametrize("precision", ["fp16", "dynamic-int8"])
def test_no_precision_has_more_partitions_than_fp32(lowered: dict[str, Lowered], precision: str) -> None:
    partitions, of_fp32 = lowered[precision].partitions, lowered["fp32"].partitions
    assert partitions is not None
    assert of_fp32 is not None
    assert 0 < partitions <= of_fp32


def test_buckets_share_their_weights(
    lowered: dict[str, Lowered], programs: tuple[Program, ...], tmp_path: Path
) -> None:
    weights = sum(parameter.nbytes for parameter in programs[0].module.parameters())
    both = (lowered["fp32"].folder / MODEL_FILE).stat().st_size
    one = (ExecuTorchConverter().lower_fp32(programs[:1], tmp_path).folder / MODEL_FILE).stat().st_size
    assert both - one < weights / 2


def test_dynamic_int8_looks_up_quantized_tables(lowered: dict[str, Lowered]) -> None:
    operators = lowered["dynamic-int8"].operators
    assert operators["quantized_decomposed::embedding_byte.out"] == 2
    assert "aten::embedding.out" not in operators


def test_lowering_leaves_the_module_as_it_was(programs: tuple[Program, ...], lowered: dict[str, Lowered]) -> None:
    assert lowered
    assert {parameter.dtype for parameter in programs[0].module.parameters()} == {torch.float32}


def test_a_second_conversion_gives_the_same_bytes_and_prints_nothing(
    lowered: dict[str, Lowered], programs: tuple[Program, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    again = lower(programs[:1], "dynamic-int8", tmp_path)
    assert capfd.readouterr() == ("", "")
    assert (again.folder / MODEL_FILE).read_bytes() == (lowered["dynamic-int8"].folder / MODEL_FILE).read_bytes()


def test_the_file_names_no_folder_of_this_machine(lowered: dict[str, Lowered]) -> None:
    site_packages = str(Path(torch.__file__).parents[1]).encode()
    for each in lowered.values():
        content = (each.folder / MODEL_FILE).read_bytes()
        for trace in (site_packages, str(Path.cwd()).encode(), b"small_text"):
            assert trace not in content
