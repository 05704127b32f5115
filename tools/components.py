"""What installing both packages with every extra for users brings, as it is installed here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement

from tools.debian import SetupError

PRODUCTS = {
    "edgeformer": ("litert", "coreml", "executorch", "onnx", "speech", "trust", "compress"),
    "edgeformer-runtime": ("full", "mic", "vad", "heic", "media", "onnx", "executorch", "coreml", "trust", "serve"),
}
"""Their extras but for those of developers and benchmarks."""

_UNSTATED = "not stated"


@dataclass(frozen=True)
class Component:
    """A package.

    Attributes:
        name: as its index has it, normalised.
        version: the installed one.
        licence: an SPDX expression where the package gives one, else its own words.
        home: its address, or None.
        needs: the names of the components that it needs itself.
        ours: it is one of the two products.
    """

    name: str
    version: str
    licence: str
    home: str | None
    needs: tuple[str, ...]
    ours: bool


def components() -> list[Component]:
    """The two products and everything they need, by name.

    Raises:
        SetupError: a package that they need is not installed.
    """
    extras: dict[str, set[str]] = {name: set(given) for name, given in PRODUCTS.items()}
    needs: dict[str, set[str]] = {}
    waiting = list(extras)
    while waiting:
        name = waiting.pop()
        needs[name] = set()
        for requirement in _requirements(name, extras[name]):
            needed = normal(requirement.name)
            if not _installed(needed):
                raise SetupError(f"{name} needs {needed}, which is not installed: make setup")
            needs[name].add(needed)
            known = extras.setdefault(needed, set())
            if needed not in needs or not requirement.extras <= known:
                known |= requirement.extras
                waiting.append(needed)
    return [_component(name, needs[name] - {name}) for name in sorted(needs)]


def normal(name: str) -> str:
    """A package's name as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _requirements(name: str, extras: set[str]) -> Iterator[Requirement]:
    """Those that hold on this platform."""
    for text in metadata.distribution(name).requires or ():
        requirement = Requirement(text)
        wanted = extras or {""}
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in wanted):
            yield requirement


def _installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _component(name: str, needs: set[str]) -> Component:
    found = metadata.distribution(name)
    home = _field(found, "Home-page") or _field(found, "Project-URL")
    return Component(
        name,
        found.version.partition("+")[0],
        _licence(found),
        home.rpartition(",")[2].strip() or None,
        tuple(sorted(needs)),
        name in PRODUCTS,
    )


def _licence(found: metadata.Distribution) -> str:
    """PEP 639's expression; before it, the classifiers, or the field, which may hold a licence's whole text."""
    expression = _field(found, "License-Expression")
    if expression:
        return expression
    stated = found.metadata.get_all("Classifier") or ()
    classifiers = [each.rpartition(" :: ")[2] for each in stated if "License ::" in each]
    return ", ".join(classifiers) or _field(found, "License").partition("\n")[0] or _UNSTATED


def _field(found: metadata.Distribution, name: str) -> str:
    """The first value of a field of its metadata, or an empty text."""
    return next((str(value).strip() for value in found.metadata.get_all(name) or ()), "")
