"""The repository's documents, taken apart: blocks of code, links, and what stands between backticks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
NOT_OURS = {"build", "dist", "node_modules", "__pycache__"}

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[a-z]*)$")
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_NOT_RUN = re.compile(r"<!-- not run: (.+?) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: behind the fence, as sh; empty where none is named.
        text: its lines.
        line: the number of its first line in the document.
        not_run: the reason in a comment `<!-- not run: reason -->` above it, or None.
    """

    language: str
    text: str
    line: int
    not_run: str | None


@cache
def files(suffix: str) -> tuple[Path, ...]:
    """The repository's files that end so; not those of environments, caches and builds."""
    found = []
    for folder, inner, names in os.walk(REPOSITORY):
        inner[:] = sorted(name for name in inner if not _is_foreign(name))
        found += [Path(folder, name) for name in sorted(names) if name.endswith(suffix)]
    return tuple(found)


def _is_foreign(folder: str) -> bool:
    return folder in NOT_OURS or folder.startswith(".") or folder.endswith(".egg-info")


def documents() -> tuple[Path, ...]:
    """Every Markdown file of the repository."""
    return files(".md")


def shown(path: Path) -> str:
    """A document's path, as test names show it."""
    return path.relative_to(REPOSITORY).as_posix()


def blocks(text: str) -> Iterator[Block]:
    """Every fenced block, in order."""
    lines = iter(enumerate(text.splitlines(), 1))
    above = ""
    for number, line in lines:
        fence = _FENCE.match(line)
        if fence is None:
            above = line if line.strip() else above
            continue
        held = []
        for _, inner in lines:
            if inner.strip() == "```":
                break
            held.append(inner.removeprefix(fence["indent"]))
        reason = _NOT_RUN.search(above)
        yield Block(fence["language"], "\n".join(held), number + 1, reason and reason[1])
        above = ""


def snippet(language: str) -> str:
    """The README's only block in a language: the lines that an app begins with there."""
    (found,) = (
        block for block in blocks((REPOSITORY / "README.md").read_text(encoding="utf-8")) if block.language == language
    )
    return found.text


def prose(text: str) -> str:
    """The document without its fenced and indented blocks; as many lines as before."""
    kept, fenced = [], False
    for line in text.splitlines():
        if _FENCE.match(line) or line.strip() == "```":
            fenced = not fenced
            line = ""
        kept.append("" if fenced or line.startswith("    ") else line)
    return "\n".join(kept)


def spans(text: str) -> list[str]:
    """What stands between single backticks in the prose."""
    return _SPAN.findall(prose(text))
