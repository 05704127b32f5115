"""The .tflite says what torch says, under the program's own names, and its int8 really is int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_text import cosine, reference, text_inputs

from edgeformer.convert.target import PRECISIONS
from edgeformer.models.family import Program
from edgeformer_converters.checks import Lowered
from edgeformer_converters.litert.converter import MODEL_FILE, LiteRTConverter

pytestmark = [pytest.mark.litert, pytest.mark.slow]


@pytest.fixture(scope="module")
def lowered(programs: tuple[Program, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Lowered]:
    """The two buckets at every precision."""
    fp32 = LiteRTConverter().lower_fp32(programs, tmp_path_factory.mktemp("litert-fp32"))
    return {"fp32": fp32} | {
        name: LiteRTConverter().lower_precision(
            programs, fp32, PRECISIONS[name], tmp_path_factory.mktemp(f"litert-{name}")
        )
        for name in ("fp16", "dynamic-int8")
    }


def run(lowered: Lowered, program: Program, inputs: dict[str, Any]) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    file, entry = lowered.entries[program.name]
    interpreter = Interpreter(str(lowered.folder / file), num_threads=1)
    return interpreter.get_signature_runner(entry)(**inputs)[program.outputs[0].name]


# fp32 differs by the order of additions only. fp16 rounds each weight once (relative 2^-11), int8 per channel by 1/254.
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-6), ("fp16", 1e-3), ("dynamic-int8", 2e-2)])
def test_each_signature_answers_as_torch_does(
    lowered: dict[str, Lowered], programs: tuple[Program, ...], precision: str, tolerance: float
) -> None:
    for program in programs:
        inputs = text_inputs(program)
        expected = reference(program, inputs)
        got = run(lowered[precision], program, inputs)
        assert np.abs(got - expected).max() < tolerance
        assert cosine(got, expected) > 0.9995


@pytest.mark.parametrize("precision", ["fp32", "fp16", "dynamic-int8"])
def test_one_partition_holds_a_signature(
    lowered: dict[str, Lowered], programs: tuple[Program, ...], precision: str
) -> None:
    assert lowered[precision].partitions == len(programs)


def test_buckets_share_their_weights(
    lowered: dict[str, Lowered], programs: tuple[Program, ...], tmp_path: Path
) -> None:
    weights = sum(parameter.nbytes for parameter in programs[0].module.parameters())
    both = (lowered["fp32"].folder / MODEL_FILE).stat().st_size
    one = (LiteRTConverter().lower_fp32(programs[:1], tmp_path).folder / MODEL_FILE).stat().st_size
    assert both - one < weights / 2


def constant_dtypes(path: Path) -> dict[str, set[str]]:
    """For each operator, the dtypes of its second input: a weight where the operator has one."""
    from ai_edge_litert import schema_py_generated as schema

    operators = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    dtypes = {code: name for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
    model = schema.Model.GetRootAs(path.read_bytes())
    graph = model.Subgraphs(0)
    found: dict[str, set[str]] = {}
    for operator in (graph.Operators(index) for index in range(graph.OperatorsLength())):
        if operator.InputsLength() > 1:
            name = operators[model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()]
            found.setdefault(name, set()).add(dtypes[graph.Tensors(operator.Inputs(1)).Type()])
    return found


def test_dynamic_int8_quantizes_tables_and_products_and_nothing_else(lowered: dict[str, Lowered]) -> None:
    dtypes = constant_dtypes(lowered["dynamic-int8"].folder / MODEL_FILE)
    assert dtypes["EMBEDDING_LOOKUP"] == {"INT8"}
    assert dtypes["FULLY_CONNECTED"] == {"INT8"}
    assert dtypes["BATCH_MATMUL"] == dtypes["ADD"] == dtypes["MUL"] == {"FLOAT32"}


def test_operators_are_counted_over_all_signatures(lowered: dict[str, Lowered]) -> None:
    operators = lowered["fp32"].operators
    assert operators["BATCH_MATMUL"] == 2 * 2
    assert operators["FULLY_CONNECTED"] == 2 * 6


def test_a_second_conversion_gives_the_same_bytes_and_prints_nothing(
    lowered: dict[str, Lowered], programs: tuple[Program, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "int8").mkdir()
    again = LiteRTConverter().lower_fp32(programs, tmp_path)
    int8 = LiteRTConverter().lower_precision(programs, again, PRECISIONS["dynamic-int8"], tmp_path / "int8")
    assert capfd.readouterr() == ("", "")
    for first, second in ((lowered["fp32"], again), (lowered["dynamic-int8"], int8)):
        assert (first.folder / MODEL_FILE).read_bytes() == (second.folder / MODEL_FILE).read_bytes()


def test_the_file_names_no_folder_of_this_machine(lowered: dict[str, Lowered]) -> None:
    import torch

    site_packages = str(Path(torch.__file__).parents[1]).encode()
    for each in lowered.values():
        content = (each.folder / MODEL_FILE).read_bytes()
        assert site_packages not in content
        assert str(Path.cwd()).encode() not in content
