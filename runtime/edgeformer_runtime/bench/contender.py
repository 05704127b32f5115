"""What is measured: contenders, and cells of them that run on equal terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgeformer_runtime.errors import InputError

Run = Callable[[], object]
"""What a contender's factory gives: a call that runs the model once."""

MAX_THREADS = 1024


@dataclass(frozen=True)
class Contender:
    """Something to measure.

    Attributes:
        name: the row's name.
        engine: what executes it.
        precision: of its weights.
        factory: "module:function"; `function(**arguments, threads=N)` loads the model and returns a `Run`. It is called
            in a fresh process.
        arguments: JSON values.
        size_bytes: the size of the model's files.
        program: the program of the bundle whose input it runs; None: it has but one.
        batch: how many inputs one run answers.
        bundle_sha256: of the bundle's manifest, which names every other file by hash; None: it is no bundle.
    """

    name: str
    engine: str
    precision: str
    factory: str
    arguments: dict[str, Any]
    size_bytes: int
    program: str | None = None
    batch: int = 1
    bundle_sha256: str | None = None


@dataclass(frozen=True)
class Cell:
    """Contenders that take turns with each other: the same input, the same number of threads.

    Attributes:
        contenders: the first is what the others' ratios refer to.
        threads: how many each may use.
    """

    contenders: tuple[Contender, ...]
    threads: int = 1

    def __post_init__(self) -> None:
        if not self.contenders:
            raise InputError("expected at least one bundle to measure")
        if not 1 <= self.threads <= MAX_THREADS:
            raise InputError(f"expected 1 to {MAX_THREADS} threads, found {self.threads}")
