"""`.pte` files made to harm: refused by their structure, before ExecuTorch sees them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.model_files import Broken
from edgeformer_runtime.model_files.executorch_file import check_executorch

pytestmark = [pytest.mark.executorch, pytest.mark.slow]


@pytest.fixture(scope="module")
def check(tiny_executorch: Path) -> Callable[[Callable[[Any], None]], object]:
    """Checks the tiny bundle's file after a change to its program."""
    from executorch.exir._serialize._program import deserialize_pte_binary, serialize_pte_binary

    with Bundle.open(tiny_executorch) as bundle:
        programs = list(bundle.manifest.programs)
        good = bundle.read_bytes(programs[0].file)

    def changed(change: Callable[[Any], None]) -> object:
        content = deserialize_pte_binary(good)
        change(content.program)
        return check_executorch(
            memoryview(bytes(serialize_pte_binary(content, extract_delegate_segments=True))), programs
        )

    return changed


def instructions(program: Any) -> Any:
    return program.execution_plan[0].chains[0].instructions


def call(program: Any) -> Any:
    """The first call of a kernel."""
    return next(each.instr_args for each in instructions(program) if hasattr(each.instr_args, "op_index"))


def tensors(program: Any) -> list[Any]:
    values = [each.val for each in program.execution_plan[0].values]
    return [each for each in values if type(each).__name__ == "Tensor"]


def jump(program: Any) -> None:
    from executorch.exir.schema import Instruction, JumpFalseCall

    instructions(program).append(Instruction(JumpFalseCall(cond_value_index=0, destination_instruction=0)))


def move(program: Any) -> None:
    from executorch.exir.schema import Instruction, MoveCall

    instructions(program).append(Instruction(MoveCall(move_from=0, move_to=1)))


def no_such_operand(program: Any) -> None:
    call(program).args[0] = 9999


def no_such_kernel(program: Any) -> None:
    call(program).op_index = 99


def operand_of_another_kind(program: Any) -> None:
    values = program.execution_plan[0].values
    call(program).args[0] = next(i for i, each in enumerate(values) if type(each.val).__name__ == "Int")


def missing_operand(program: Any) -> None:
    del call(program).args[0]


def foreign_kernel(program: Any) -> None:
    program.execution_plan[0].operators[0].name = "aten::resize_"


def foreign_delegate(program: Any) -> None:
    program.execution_plan[0].delegates[0].id = "QnnBackend"


def behind_its_memory(program: Any) -> None:
    planned = next(each for each in tensors(program) if each.allocation_info is not None)
    planned.allocation_info.memory_offset_low = 1 << 20


def no_such_memory(program: Any) -> None:
    next(each for each in tensors(program) if each.allocation_info is not None).allocation_info.memory_id = 7


def memory_without_end(program: Any) -> None:
    program.execution_plan[0].non_const_buffer_sizes[1] = 1 << 40


def larger_constant(program: Any) -> None:
    next(each for each in tensors(program) if each.allocation_info is None).sizes[0] = 1 << 20


def no_such_constant(program: Any) -> None:
    next(each for each in tensors(program) if each.allocation_info is None).data_buffer_idx = 99


def negative_size(program: Any) -> None:
    tensors(program)[1].sizes[0] = -1


def another_order(program: Any) -> None:
    tensors(program)[1].dim_order = [0, 0]


def another_offset(program: Any) -> None:
    tensors(program)[1].storage_offset = 64


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (jump, "an instruction of the kind 4, which moves, jumps or is unknown"),
        (move, "an instruction of the kind 3, which moves, jumps or is unknown"),
        (no_such_operand, "it names the value 9999 of"),
        (no_such_kernel, "it calls number 99 of"),
        (operand_of_another_kind, "is I: expected T"),
        (missing_operand, "operands"),
        (foreign_kernel, "which is none that a reader knows"),
        (foreign_delegate, "it has the delegate 'QnnBackend'"),
        (behind_its_memory, "lies at 1048576"),
        (no_such_memory, "is planned into memory 7 of"),
        (memory_without_end, r"bytes: expected at most 2\^30"),
        (larger_constant, "has fewer bytes than its shape needs"),
        (no_such_constant, "has fewer bytes than its shape needs"),
        (negative_size, "expected sizes of 0"),
        (another_order, "is not dense"),
        (another_offset, "is not dense"),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
def test_structure(check: Callable[..., object], change: Callable[[Any], None], reason: str) -> None:
    with pytest.raises(Broken, match=reason):
        check(change)


def test_the_file_itself_is_taken(check: Callable[..., object]) -> None:
    assert check(lambda _: None)
