"""What is measured: contenders, and cells of them that run on equal terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from edgeformer_runtime.bundle.signature import NO_REQUIREMENT, Requirement
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.interface import StrPath

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


# Bundles as contenders, and the cells of a sweep over programs, batches and threads.


ALL_PROGRAMS = "all"
MAX_BATCH = 1024


@dataclass(frozen=True)
class Sweep:
    """Under which conditions all are measured; each combination is a cell.

    Attributes:
        threads: numbers of threads.
        batches: how many inputs one run answers. A bundle's programs take one input, so it runs them one by one.
        programs: the programs that run, which stand for lengths of texts and recordings; ("all",): each that the first
            bundle can be measured on; (): its largest.
    """

    threads: tuple[int, ...] = (1,)
    batches: tuple[int, ...] = (1,)
    programs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.threads or not self.batches or not all(1 <= batch <= MAX_BATCH for batch in self.batches):
            raise InputError(f"expected batches of 1 to {MAX_BATCH} inputs, and numbers of threads")


FACTORY = "edgeformer_runtime.bench.workload:bundle_run"
ISOLATED_FACTORY = "edgeformer_runtime.isolation.confinement:isolated_run"


def bundle_contender(
    path: str | Path,
    program: str | None = None,
    required: Requirement = NO_REQUIREMENT,
    batch: int = 1,
    isolated: bool = False,
) -> Contender:
    """A bundle as a contender, with the `workload` of all programs or of one.

    Args:
        path: the bundle's folder or zip.
        program: the program that runs; None: the largest.
        required: what it must be.
        batch: how often one run calls it.
        isolated: whether its process keeps nothing but the bundle.

    Raises:
        BundleError: it is no bundle, is not as required, or has no vectors.
        InputError: it has no such program.
    """
    from edgeformer_runtime.bench.workload import workload
    from edgeformer_runtime.bundle.bundle import Bundle

    with Bundle.open(path, required, allow_refused=True) as bundle:
        chosen = workload(bundle, program)
        manifest = bundle.manifest
        return Contender(
            name=Path(path).resolve().name.removesuffix(".zip"),
            engine=manifest.target,
            precision=manifest.precision,
            factory=ISOLATED_FACTORY if isolated else FACTORY,
            arguments={
                "path": str(path),
                "program": chosen.program,
                # The other process opens the bundle anew, so it checks everything anew.
                "required": required.to_json(),
                "batch": batch,
            },
            size_bytes=bundle.model_size_bytes,
            program=chosen.program,
            batch=batch,
            bundle_sha256=bundle.manifest_sha256,
        )


def conditions(
    first: str | Path, sweep: Sweep, required: Requirement = NO_REQUIREMENT
) -> list[tuple[str | None, int, int]]:
    """The sweep's combinations of program, batch and threads, threads changing first.

    Args:
        first: the bundle whose programs "all" means.
        sweep: what is asked for.
        required: what that must be.
    """
    programs: tuple[str | None, ...] = sweep.programs or (None,)
    if ALL_PROGRAMS in programs:
        from edgeformer_runtime.bench.workload import measurable_programs
        from edgeformer_runtime.bundle.bundle import Bundle

        with Bundle.open(first, required, allow_refused=True) as bundle:
            programs = measurable_programs(bundle)
    return list(product(programs, sweep.batches, sweep.threads))


def bundle_cells(
    paths: Sequence[StrPath], sweep: Sweep, required: Requirement = NO_REQUIREMENT, isolated: bool = False
) -> list[Cell]:
    """The cells of a sweep over bundles.

    Raises:
        BundleError: one of them is no bundle, is not as required, or has no vectors.
        InputError: there is none, or one has no such program.
    """
    if not paths:
        raise InputError("expected at least one bundle to measure")
    places = [Path(path) for path in paths]
    return [
        Cell(tuple(bundle_contender(path, program, required, batch, isolated) for path in places), threads)
        for program, batch, threads in conditions(places[0], sweep, required)
    ]
