"""CONTRIBUTING's steps to a new family, task and target name all that the toys of the tests needed, and no core file
knows the toys."""

from __future__ import annotations

import ast
import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeformer.convert.target import FileFormat, Target
from edgeformer.models.family import Family
from edgeformer.tasks import task as core
from edgeformer_runtime.tasks import task as runtime
from tests.docs.documents import REPOSITORY, files

CORE = ("edgeformer", "converters", "runtime")


@dataclass(frozen=True)
class Toy:
    """A record as another author would add it.

    Attributes:
        section: of CONTRIBUTING, by its title.
        file: relative to the repository; all there is of it.
        name: as bundles and commands have it.
        records: the classes of the records that the file makes.
    """

    section: str
    file: str
    name: str
    records: tuple[type, ...]


TOYS = (
    Toy("Add a family", "tests/edgeformer/models/toy_family.py", "bag-of-words", (Family,)),
    Toy(
        "Add a task",
        "tests/edgeformer/tasks/toy_task.py",
        "text-rating",
        (runtime.Task, runtime.InputKind, runtime.AnswerKind, core.Task),
    ),
    Toy("Add a target", "tests/edgeformer/convert/toy_target.py", "web", (Target, FileFormat)),
)
EACH = pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.name)


def section(title: str) -> str:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return str(found)


def names(title: str) -> set[str]:
    """The words between backticks of a section."""
    return {word for span in re.findall(r"`([^`]+)`", section(title)) for word in re.findall(r"\w+", span)}


def required(record: type) -> set[str]:
    """The fields of a record that have no default."""
    missing = dataclasses.MISSING
    fields = dataclasses.fields(record)
    return {each.name for each in fields if each.default is missing and each.default_factory is missing}


def given(file: str, records: tuple[type, ...]) -> set[str]:
    """The fields of the records that a file sets, in a record's call or in `replace` of one."""
    makers = {record.__name__ for record in records} | {"replace"}
    known = {field.name for record in records for field in dataclasses.fields(record)}
    calls = [node for node in ast.walk(ast.parse((REPOSITORY / file).read_text())) if isinstance(node, ast.Call)]
    chosen = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id in makers]
    return {str(keyword.arg) for call in chosen for keyword in call.keywords} & known


@EACH
def test_each_field_that_a_toy_needed_is_named(toy: Toy) -> None:
    needed = given(toy.file, toy.records)
    assert len(needed) > 4
    assert needed - names(toy.section) == set()


@EACH
def test_each_field_without_a_default_is_named(toy: Toy) -> None:
    needed = {name for record in toy.records for name in required(record)}
    assert needed - names(toy.section) == set()


@EACH
def test_a_toy_is_named_with_its_length(toy: Toy) -> None:
    text = section(toy.section)
    assert toy.file in text
    (stated,) = re.findall(r"in (\d+) lines", text)
    assert int(stated) == pytest.approx(len((REPOSITORY / toy.file).read_text().splitlines()), rel=0.15)


@EACH
def test_no_file_of_the_core_knows_a_toy(toy: Toy) -> None:
    own = [path for path in files(".py") if path.relative_to(REPOSITORY).parts[0] in CORE]
    assert len(own) > 200
    module = toy.file.removesuffix(".py").replace("/", ".")
    for path in own:
        text = path.read_text(encoding="utf-8")
        assert f'"{toy.name}"' not in text and module not in text and Path(toy.file).stem not in text, path
