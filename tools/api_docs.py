"""Writes docs/api.md: what a user imports from both packages, from its docstrings.

python -m tools.api_docs
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import edgeformer
from edgeformer import api
from edgeformer_runtime.registry import load_attribute

FILE = Path(__file__).resolve().parents[1] / "docs" / "api.md"

FUNCTIONS = ("convert", "verify", "evaluate", "benchmark", "compress", "doctor")
RESULTS = (
    "edgeformer.convert.result:ConversionResult",
    "edgeformer.convert.result:Converted",
    "edgeformer.convert.agreement:Agreement",
    "edgeformer_runtime.verify.verify:Verification",
    "edgeformer_runtime.verify.verify:Stage",
    "edgeformer_runtime.verify.verify:LayerStage",
    "edgeformer.evaluate.classification:Evaluation",
    "edgeformer.evaluate.classification:Accuracy",
    "edgeformer.evaluate.metrics:ClassReport",
    "edgeformer.evaluate.classification:LabelSetEvaluation",
    "edgeformer.evaluate.embeddings:EmbeddingEvaluation",
    "edgeformer.evaluate.speech:SpeechEvaluation",
    "edgeformer_runtime.bench.report:BenchmarkResult",
    "edgeformer_runtime.bench.report:Report",
    "edgeformer_runtime.bench.report:Row",
    "edgeformer_runtime.bench.report:Quantiles",
    "edgeformer.compress.compress:Compressed",
    "edgeformer.compress.budget.chain:Chain",
    "edgeformer.compress.budget.search:Point",
    "edgeformer.doctor.diagnosis:Diagnosis",
    "edgeformer.doctor.diagnosis:ProgramFacts",
    "edgeformer.doctor.examiner:Finding",
)
PIPELINES = (
    "edgeformer_runtime.pipelines:Pipeline",
    "edgeformer_runtime.pipelines.results:ClassificationResult",
    "edgeformer_runtime.pipelines.results:EmbeddingResult",
    "edgeformer_runtime.pipelines.results:Statistics",
    "edgeformer_runtime.pipelines.speech:Transcriber",
    "edgeformer_runtime.pipelines.transcript:Transcript",
    "edgeformer_runtime.pipelines.transcript:Segment",
    "edgeformer_runtime.pipelines.transcript:Word",
)
NOT_SHOWN = ("to_json", "tables", "with_layers", "named", "is_batch", "expected_json")
"""Methods: the first two are described once for all results, the others are for the packages' own use."""

ERRORS = ("EdgeFormerError", "BundleError", "InputError", "EngineError")

HEAD = """\
# Python API

Made by `make api-docs` from the docstrings: a change goes there.

`StrPath` is `str | os.PathLike[str]`. `Progress` is `Callable[[str, int, int], None]`: it takes a step's name, how much
of the step is finished and how much there is. Where both numbers are 0, the text is a line to read. `progress=print`
prints all of it; without a callback the functions print nothing.

Errors name options as the commands do: `--seq-len` is `seq_len`, `--eval` is `eval_data` and `--zip` is `zipped`.

Results are frozen. In a notebook and at a prompt they show the tables that the command of the same name prints, and
`to_json()` gives what it prints with `--json`.
"""

_SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Example):")
_ENTRY = re.compile(r"(\w[\w, ]*): (.*)")


def document() -> str:
    """The page."""
    parts = [HEAD, "## edgeformer\n", *_prose(inspect.getdoc(edgeformer) or "")]
    for name in FUNCTIONS:
        parts += [f"### edgeformer.{name}\n", *_function(name, getattr(api, name))]
    parts += ["## What the functions return\n", *_classes(RESULTS)]
    parts += ["## edgeformer_runtime\n", "`edgeformer.load` is the same function.\n"]
    parts += ["### edgeformer_runtime.load\n", *_function("load", load_attribute("edgeformer_runtime:load"))]
    parts += ["## What bundles answer\n", *_classes(PIPELINES)]
    parts += ["## Errors\n", "`edgeformer` has them by name; they are in `edgeformer_runtime.errors`.\n"]
    parts += [*_classes(tuple(f"edgeformer_runtime.errors:{name}" for name in ERRORS))]
    return "\n".join(parts)


def _classes(entries: tuple[str, ...]) -> Iterator[str]:
    for entry in entries:
        found = load_attribute(entry)
        yield f"### {found.__name__}\n"
        yield from _prose(inspect.getdoc(found) or "")
        for name, member in vars(found).items():
            if (name.startswith("_") and name != "__call__") or name in NOT_SHOWN:
                continue
            if isinstance(member, property):
                yield f"#### {found.__name__}.{name}\n"
                yield from _prose(inspect.getdoc(member) or "")
            elif inspect.isfunction(member):
                yield f"#### {found.__name__}.{name}\n"
                yield from _function(name, member)


def _function(name: str, function: Any) -> Iterator[str]:
    yield f"```python\n{_signature(name, inspect.signature(function))}\n```\n"
    yield from _prose(inspect.getdoc(function) or "")


def _signature(name: str, signature: inspect.Signature) -> str:
    """As in the source: annotations are texts there."""
    parameters = []
    bare = False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not bare:
            bare = True
            parameters.append("*")
        default = "" if parameter.default is parameter.empty else f" = {_default(parameter.default)}"
        annotation = "" if parameter.annotation is parameter.empty else f": {parameter.annotation}"
        parameters.append(f"{parameter.name}{annotation}{default}")
    line = f"{name}({', '.join(parameters)}) -> {signature.return_annotation}"
    if len(line) <= 100:
        return line
    return "\n".join([f"{name}(", *(f"    {each}," for each in parameters), f") -> {signature.return_annotation}"])


def _default(value: object) -> str:
    return getattr(value, "__name__", repr(value))


def _prose(text: str) -> Iterator[str]:
    """A docstring as Markdown: its sections become lists, an example becomes code."""
    title = None
    lines: list[str] = []
    for line in [*text.splitlines(), "Example:"]:  # which ends the last section
        found = _SECTION.fullmatch(line)
        if found is None:
            lines.append(line)
            continue
        yield from _section(title, inspect.cleandoc("\n".join(lines)))
        title, lines = found[1], []


def _section(title: str | None, body: str) -> Iterator[str]:
    if not body:
        return
    if title is None:
        yield f"{body}\n"
    elif title == "Example":
        yield f"```pycon\n{body}\n```\n"
    elif title == "Returns":
        yield f"Returns: {body}\n"
    else:
        entries: list[str] = []
        for line in body.splitlines():
            found = None if line.startswith(" ") else _ENTRY.fullmatch(line)
            if found is not None:
                entries.append(f"- `{found[1].replace(', ', '`, `')}`: {found[2]}")
            elif line.strip():
                entries.append(f"  {line.strip()}")
        heading = {"Args": "Arguments", "Raises": "Errors"}.get(title, title)
        yield "\n".join([f"{heading}:\n", *entries]) + "\n"


if __name__ == "__main__":
    FILE.write_text(document(), encoding="utf-8")
