"""Core ML packages, executed by the MIL reference, say what torch says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_text import SmallTextClassifier, reference, text_inputs, text_programs
from torch import Tensor, nn

from edgeformer.convert.target import PRECISIONS
from edgeformer.models.family import Program
from edgeformer_converters.checks import Lowered
from edgeformer_converters.coreml.converter import PACKAGE, CoreMLConverter
from edgeformer_converters.mil.interpreter import MilInterpreter, run
from edgeformer_converters.mil.program import read_program
from edgeformer_runtime.bundle.manifest import TensorSpec
from edgeformer_runtime.errors import EngineError, InputError

pytestmark = [pytest.mark.coreml, pytest.mark.slow]


def lower(programs: tuple[Program, ...], precision: str, folder: Path) -> Lowered:
    unused = Lowered(folder, (), {}, {}, None)
    return CoreMLConverter().lower_precision(programs, unused, PRECISIONS[precision], folder)


@pytest.fixture(scope="module")
def lowered(programs: tuple[Program, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Lowered]:
    """The two buckets at every precision but mixed, which `test_mixed` tries with plans."""
    names = [name for name in CoreMLConverter().precisions if name != "mixed"]
    return {name: lower(programs, name, tmp_path_factory.mktemp(f"coreml-{name}")) for name in names}


# fp16 rounds every intermediate result (relative 2^-11), and int8 weights differ by up to 1/254 of their channel.
@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [("fp32", 1e-6), ("fp16", 2e-3), ("dynamic-int8", 1e-2), ("palette6", 2e-2), ("palette4", 1e-1), ("int4", 1e-1)],
)
def test_each_function_answers_as_torch_does(
    lowered: dict[str, Lowered], programs: tuple[Program, ...], precision: str, tolerance: float
) -> None:
    for program in programs:
        file, entry = lowered[precision].entries[program.name]
        inputs = text_inputs(program)
        got = run(lowered[precision].folder / file, inputs, entry)
        assert got["logits"].dtype == np.float32
        assert np.abs(got["logits"] - reference(program, inputs)).max() < tolerance


def test_one_program_is_the_function_main(programs: tuple[Program, ...], tmp_path: Path) -> None:
    each = CoreMLConverter().lower_fp32(programs[:1], tmp_path)
    assert each.entries == {"classify_16": (PACKAGE, "main")}
    inputs = text_inputs(programs[0])
    got = run(tmp_path / PACKAGE, inputs)["logits"]
    assert np.abs(got - reference(programs[0], inputs)).max() < 1e-6
    by_name = run(str(tmp_path / PACKAGE), inputs)["logits"]
    assert np.array_equal(by_name, got)


def test_the_package_holds_what_lowered_lists_and_shares_weights(
    lowered: dict[str, Lowered], programs: tuple[Program, ...]
) -> None:
    each = lowered["fp32"]
    found = sorted(str(path.relative_to(each.folder)) for path in each.folder.rglob("*") if path.is_file())
    assert found == sorted(each.files)
    weights = sum(parameter.nbytes for parameter in programs[0].module.parameters())
    assert (each.folder / PACKAGE / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size < 1.2 * weights


def test_int8_compresses_large_weights(lowered: dict[str, Lowered]) -> None:
    assert lowered["dynamic-int8"].operators["constexpr_blockwise_shift_scale"] >= 2 * 2
    assert "constexpr_blockwise_shift_scale" not in lowered["fp16"].operators


def test_inputs_and_outputs_keep_their_names_and_types(lowered: dict[str, Lowered]) -> None:
    for each in lowered.values():
        for function in read_program(each.folder / PACKAGE).values():
            assert {(v.name, v.dtype) for v in function.inputs} == {
                (name, "INT32") for name in ("input_ids", "attention_mask", "token_type_ids")
            }
            assert function.outputs == ("logits",)


class Lookup(nn.Module):
    """A table longer than 16-bit signed ids reach; row i holds i's high and low half."""

    def __init__(self) -> None:
        super().__init__()
        ids = torch.arange(40_000)
        self.table = nn.Embedding.from_pretrained(torch.stack([ids // 256, ids % 256], 1).float())

    def forward(self, ids: Tensor) -> tuple[Tensor]:
        """(1, 4) int32 to (1, 4, 2)."""
        return (self.table(ids),)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_token_ids_survive_the_casts_of_half_precision(precision: str, tmp_path: Path) -> None:
    program = Program(
        "look_up",
        Lookup().eval(),
        (TensorSpec("ids", "int32", (1, 4)),),
        (TensorSpec("rows", "float32", (1, 4, 2)),),
    )
    lower((program,), precision, tmp_path)
    ids = np.int32([[0, 32_767, 32_768, 39_999]])
    rows = run(tmp_path / PACKAGE, {"ids": ids})["rows"]
    assert (rows[..., 0] * 256 + rows[..., 1]).tolist() == ids.tolist()


class Approximated(nn.Module):
    """The GELU of gelu_new and gelu_pytorch_tanh, and the exact one."""

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """(1, 9) to (1, 9)."""
        return (nn.functional.gelu(x, approximate="tanh") - nn.functional.gelu(x + 1),)


def test_each_gelu_is_the_one_that_was_meant(tmp_path: Path) -> None:
    spec = TensorSpec("x", "float32", (1, 9))
    program = Program("bend", Approximated().eval(), (spec,), (TensorSpec("y", "float32", (1, 9)),))
    CoreMLConverter().lower_fp32((program,), tmp_path)
    x = np.linspace(-4, 4, 9, dtype=np.float32)[None]
    (expected,) = program.module(torch.from_numpy(x))
    assert np.abs(run(tmp_path / PACKAGE, {"x": x})["y"] - expected.numpy()).max() < 1e-6


class Masked(SmallTextClassifier):
    """Adds what many public models add to hide padding, to the logits of the first three positions."""

    def __init__(self, mask_value: float) -> None:
        super().__init__()
        self.mask_value = mask_value

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor]:
        """As its base."""
        (logits,) = super().forward(input_ids, attention_mask, token_type_ids)
        hidden = attention_mask[:, :3] == 0
        return (logits + torch.where(hidden, self.mask_value, 0.0),)


@pytest.mark.parametrize("mask_value", [-1e9, -torch.inf])
def test_a_mask_value_beyond_float16_is_refused_in_half_precision(mask_value: float, tmp_path: Path) -> None:
    programs = text_programs(Masked(mask_value).eval(), (16,))
    with pytest.raises(InputError, match=r"beyond float16's 65504: use a smaller mask value, such as -1000"):
        lower(programs, "fp16", tmp_path)


def test_a_finite_mask_value_is_the_same_in_half_precision(tmp_path: Path) -> None:
    (program,) = text_programs(Masked(-1000.0).eval(), (16,))
    lower((program,), "fp16", tmp_path)
    inputs = text_inputs(program)
    inputs["attention_mask"][:] = 0
    assert np.abs(run(tmp_path / PACKAGE, inputs)["logits"] - reference(program, inputs)).max() < 0.5


def test_a_second_conversion_gives_the_same_bytes_and_prints_nothing(
    lowered: dict[str, Lowered], programs: tuple[Program, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first, again = lowered["dynamic-int8"], lower(programs, "dynamic-int8", tmp_path)
    assert capfd.readouterr() == ("", "")
    assert again.files == first.files
    for name in first.files:
        assert (first.folder / name).read_bytes() == (again.folder / name).read_bytes(), name


def test_the_package_names_no_folder_of_this_machine(lowered: dict[str, Lowered]) -> None:
    site_packages = str(Path(torch.__file__).parents[1]).encode()
    for each in lowered.values():
        for name in each.files:
            content = (each.folder / name).read_bytes()
            assert site_packages not in content
            assert str(Path.cwd()).encode() not in content


class Growing(nn.Module):
    """Goes beyond float16 and comes back."""

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """(1, 4) to (1, 4)."""
        return (1 / (x * 300.0 * 300.0),)


def test_the_first_operator_beyond_half_is_named_and_infinity_goes_on(tmp_path: Path) -> None:
    specs = (TensorSpec("x", "float32", (1, 4)),), (TensorSpec("y", "float32", (1, 4)),)
    lower((Program("grow", Growing(), *specs),), "fp16", tmp_path)
    (function,) = read_program(tmp_path / PACKAGE).values()
    interpreter = MilInterpreter(function)
    assert interpreter.run({"x": np.ones((1, 4), np.float32)})["y"].tolist() == [[0, 0, 0, 0]]
    assert "reaches 9e+04, beyond float16's 65504" in str(interpreter.overflow)
    interpreter.run({"x": np.full((1, 4), 0.5, np.float32)})
    assert interpreter.overflow is None


def test_scalars_have_no_place_in_core_ml(programs: tuple[Program, ...]) -> None:
    scalar = replace(programs[0], outputs=(TensorSpec("logits", "float32", ()),))
    (problem,) = CoreMLConverter().check((scalar,), PRECISIONS["fp32"])
    assert problem == "coreml takes tensors of rank 1 to 5, classify_16.logits has shape ()"


def rebuilt(lowered: dict[str, Lowered], change: Any) -> MilInterpreter:
    function = read_program(lowered["fp32"].folder / PACKAGE)["classify_16"]
    return MilInterpreter(replace(function, operations=tuple(change(each) for each in function.operations)))


def test_an_unknown_operator_is_named(lowered: dict[str, Lowered]) -> None:
    with pytest.raises(EngineError, match="does not know the operator warp: verify on macOS"):
        rebuilt(lowered, lambda each: replace(each, type="warp") if each.type == "gelu" else each)


def test_an_unknown_option_of_an_operator_is_named(lowered: dict[str, Lowered], programs: tuple[Program, ...]) -> None:
    interpreter = rebuilt(
        lowered,
        lambda each: (
            replace(each, inputs={"twist": (each.inputs["x"],)} | each.inputs) if each.type == "gelu" else each
        ),
    )
    with pytest.raises(EngineError, match=r"MIL operator gelu .*given {'twist': \[\(1, 16, .*twist") as caught:
        interpreter.run(text_inputs(programs[0]))
    assert "\n" not in str(caught.value)  # tensors are shown by their shapes, in lists, too


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: {k: v for k, v in x.items() if k != "input_ids"}, "input 'input_ids' is missing"),
        (lambda x: x | {"more": x["input_ids"]}, "unknown input 'more'"),
        (lambda x: x | {"input_ids": x["input_ids"].astype(np.int64)}, "expected int32 of shape (1, 16), found int64"),
        (lambda x: x | {"input_ids": x["input_ids"][:, :5]}, "found int32 of shape (1, 5)"),
    ],
)
def test_inputs_are_checked(
    lowered: dict[str, Lowered], programs: tuple[Program, ...], change: Any, words: str
) -> None:
    with pytest.raises(InputError) as caught:
        run(lowered["fp32"].folder / PACKAGE, change(text_inputs(programs[0])), "classify_16")
    assert words in str(caught.value)


def test_an_unknown_function_lists_the_known(lowered: dict[str, Lowered]) -> None:
    with pytest.raises(InputError, match=r"no function 'other': expected one of classify_16, classify_32"):
        run(lowered["fp32"].folder / PACKAGE, {}, "other")
