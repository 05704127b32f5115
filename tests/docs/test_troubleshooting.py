"""Every message that docs/troubleshooting.md quotes is one that the code can print."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.docs.documents import REPOSITORY

PAGE = REPOSITORY / "docs" / "troubleshooting.md"
PACKAGES = ("edgeformer", "converters/edgeformer_converters", "runtime/edgeformer_runtime")
LEFT_OUT = "…"
LEAST_OWN = 0.5
"""Of a quoted message: the share of letters that one text of the code states and does not fill in."""

_QUOTED = re.compile(r"^### `(.+)`$", re.MULTILINE)
_FILLED_IN = "\0"


def template(node: ast.expr) -> str | None:
    """A text of the code, with a mark where it fills something in; None: no text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else _FILLED_IN for part in node.values)
    return None


@cache
def templates() -> list[str]:
    """Every text of the packages that is long enough to be a message."""
    files = [path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")]
    found = {
        text
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.expr) and (text := template(node)) and " " in text
    }
    return sorted(found)


def is_said(message: str) -> bool:
    """Whether a text of the code can give this message, whose … stands for anything, and states most of it itself."""
    words = _words(message)
    shared = [(len(words & _words(text)), text) for text in templates()]
    likely = sorted((each for each in shared if each[0] >= LEAST_OWN * len(words) / 2), reverse=True)
    least = LEAST_OWN * len(message.replace(LEFT_OUT, ""))
    return any(own_letters(message, text) >= least for _, text in likely)


@cache
def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[\w-]{3,}", text))


def own_letters(message: str, text: str) -> int:
    """How many letters of the message the text states, at most; -1: it cannot be the message.

    Both are patterns: a … of the message takes any part of the text, and what is filled in any part of the message.
    """
    # best[j]: of the message from here on and the text from j on.
    best = [-1] * len(text) + [0]
    for j in reversed(range(len(text))):
        best[j] = best[j + 1] if text[j] == _FILLED_IN else -1
    for letter in reversed(message):
        below, best = best, [0] * (len(text) + 1)
        best[-1] = below[-1] if letter == LEFT_OUT else -1
        for j in reversed(range(len(text))):
            found = -1
            if letter == LEFT_OUT:
                found = max(below[j], best[j + 1])
            if text[j] == _FILLED_IN:
                found = max(found, below[j], best[j + 1])
            if letter == text[j] and below[j + 1] >= 0:
                found = max(found, below[j + 1] + 1)
            best[j] = found
    return best[0]


def messages() -> list[str]:
    return _QUOTED.findall(PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("message", messages())
def test_the_code_says_it(message: str) -> None:
    assert is_said(message), "the code has no such message any more"


def test_the_page_has_the_most_frequent_ones() -> None:
    assert len(messages()) >= 30
    assert len(set(messages())) == len(messages())


@pytest.mark.parametrize("message", ["no sheep at the door: expected wool", "… is no tokenizer of pancakes: …"])
def test_an_invented_message_is_found(message: str) -> None:
    assert not is_said(message)


def test_letters_of_the_code() -> None:
    assert own_letters("no file a.txt: …", f"no file {_FILLED_IN}: look elsewhere") == len("no file : ")
    assert own_letters("no file a.txt", f"no file {_FILLED_IN}: look elsewhere") == -1
    assert own_letters("no folder a", f"no file {_FILLED_IN}") == -1
