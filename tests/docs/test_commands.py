"""What a document shows can be typed: sub-commands, options, modules and make targets exist, and names of Python do."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

import edgeformer
from edgeformer.cli import app as edgeformer_app
from edgeformer_runtime.cli.app import app as runtime_app
from tests.docs.documents import REPOSITORY, blocks, documents, shown, spans

COMMANDS: dict[str, Any] = {
    "edgeformer": typer.main.get_command(edgeformer_app),
    "edgeformer-runtime": typer.main.get_command(runtime_app),
}
ELLIPSIS = "..."
SHELL = ("sh", "bash", "console")

_STARTED = re.compile(r"^ExecStart=(.+)$", re.MULTILINE)
_TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)


def command_lines(text: str) -> Iterator[list[str]]:
    """The words of each command of the shell blocks; those behind && or a pipe are commands of their own. So are
    those that systemd starts.
    """
    for block in blocks(text):
        if block.language == "ini":
            yield from (shlex.split(command) for command in _STARTED.findall(block.text))
        if block.language not in SHELL:
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            for command in re.split(r" (?:&&|\|) ", line):
                words = shlex.split(command, comments=True)
                if words:
                    yield words


def problem(words: list[str]) -> str | None:
    """Why a command could not be typed, or None."""
    for place, word in enumerate(words):
        name = Path(word).name
        if name in COMMANDS:
            return problem_of_ours(name, words[place + 1 :])
        if name == "make":
            targets = _TARGET.findall((REPOSITORY / "Makefile").read_text(encoding="utf-8"))
            unknown = [target for target in words[place + 1 :] if target not in targets]
            return f"make has no {unknown}" if unknown else None
        if word == "-m" and words[place + 1].split(".")[0] in (
            "benchmarks",
            "tools",
            "tests",
            "android_demo",
            "ios_demo",
        ):
            module = REPOSITORY / words[place + 1].replace(".", "/")
            return None if module.with_suffix(".py").exists() or module.is_dir() else f"no module {words[place + 1]}"
    return None


def problem_of_ours(name: str, arguments: list[str]) -> str | None:
    """What the command line's own parser says of the arguments; nothing is run."""
    command = COMMANDS[name]
    if not arguments or arguments[0].startswith("-"):
        return None
    sub_command = command.commands.get(arguments[0])
    if sub_command is None:
        return f"{name} has no command {arguments[0]}"
    if ELLIPSIS in arguments:
        return None
    try:
        sub_command.make_context(arguments[0], arguments[1:])
    except Exception as error:  # click's own, of whichever copy of click typer brings
        return f"{name} {arguments[0]}: {error}"
    return None


def known_options() -> set[str]:
    return {
        name
        for command in COMMANDS.values()
        for sub_command in command.commands.values()
        for parameter in sub_command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
    } | {"--help", "--version", "--debug", "--install-completion"}


@pytest.mark.parametrize("document", documents(), ids=shown)
def test_commands_in_blocks_can_be_typed(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert [found for found in map(problem, command_lines(text)) if found] == []


@pytest.mark.parametrize("document", documents(), ids=shown)
def test_commands_in_sentences_exist(document: Path) -> None:
    """`edgeformer NAME` names a command, and options behind it are some command's."""
    known, problems = known_options(), []
    for span in spans(document.read_text(encoding="utf-8")):
        words = span.split()
        name = Path(words[0]).name if words else ""
        if name not in COMMANDS:
            continue
        if len(words) > 1 and re.fullmatch(r"[a-z][a-z-]+", words[1]) and words[1] not in COMMANDS[name].commands:
            problems.append(span)
        problems += [span for word in words if word.startswith("--") and word.partition("=")[0] not in known]
    assert problems == []


@pytest.mark.parametrize("document", documents(), ids=shown)
def test_shell_blocks_say_that_they_are(document: Path) -> None:
    """Commands stand in fenced blocks of sh, which the other tests read."""
    lines = document.read_text(encoding="utf-8").splitlines()
    indented = [line for line in lines if re.match(r"    (\S*/bin/)?(edgeformer|edgeformer-runtime|pip|make) ", line)]
    assert indented == []


@pytest.mark.parametrize("document", documents(), ids=shown)
def test_python_blocks_import_what_exists(document: Path) -> None:
    """They are Python, and the names of our packages that they use exist."""
    for block in blocks(document.read_text(encoding="utf-8")):
        if block.language == "python" and not is_signature(block.text):
            tree = ast.parse(block.text)
            assert missing_names(tree) == [], f"{shown(document)}:{block.line}"


def is_signature(text: str) -> bool:
    """Whether a block states the signature of a function or a method, which is no code: NAME(...) -> TYPE."""
    return re.match(r"[\w.]+\((?:\n|.*\) -> )", text) is not None


def missing_names(tree: ast.Module) -> list[str]:
    missing = []
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("edgeformer"):
            module = importlib.import_module(str(node.module))
            missing += [name.name for name in node.names if not hasattr(module, name.name)]
        elif isinstance(node, ast.Import):
            modules |= {name.asname or name.name: name.name for name in node.names if name.name == "edgeformer"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            module = importlib.import_module(modules[node.value.id])
            missing += [] if hasattr(module, node.attr) else [node.attr]
    return missing


@pytest.mark.parametrize("document", documents(), ids=shown)
def test_functions_of_the_api_exist(document: Path) -> None:
    """`ef.NAME` in a sentence is a name of `edgeformer`."""
    named = [re.match(r"ef\.(\w+)", span) for span in spans(document.read_text(encoding="utf-8"))]
    assert [found[1] for found in named if found and not hasattr(edgeformer, found[1])] == []


def test_missing_names_are_found() -> None:
    assert missing_names(ast.parse("from edgeformer_runtime import load, unload")) == ["unload"]
    assert missing_names(ast.parse("import edgeformer as ef\nef.fly()")) == ["fly"]


@pytest.mark.parametrize(
    "words",
    ["edgeformer convert model --no-such 1", "edgeformer-runtime fly", "make nothing", "python -m benchmarks.none"],
)
def test_a_wrong_command_is_found(words: str) -> None:
    assert problem(words.split())


def test_a_right_command_is_not() -> None:
    assert problem(["edgeformer", "convert", "model", "--target", "litert", "--out", "dist"]) is None
    assert problem(["edgeformer-runtime", "run", "bundle", "text", "--top", "3"]) is None
