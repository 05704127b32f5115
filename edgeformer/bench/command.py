"""`edgeformer bench`: every machine that was asked for measures, and all reports are shown together."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast

from edgeformer.bench.adb import AdbHost
from edgeformer.bench.ssh import SshHost
from edgeformer.tasks.task import TASKS
from edgeformer_runtime.bench.contender import Cell, Contender, Sweep, bundle_contender, conditions
from edgeformer_runtime.bench.measure import measure_cells
from edgeformer_runtime.bench.report import LOCAL, Report
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.signature import NO_REQUIREMENT, Requirement
from edgeformer_runtime.errors import BundleError, EngineError, InputError
from edgeformer_runtime.interface import CountProgress
from edgeformer_runtime.registry import check_choice, did_you_mean, load_attribute

Tell = Callable[[str], None]
"""Called with a line before each step that takes its time."""


@dataclass(frozen=True)
class Request:
    """What is to be measured.

    Attributes:
        bundles: folders or zips; the first is what ratios refer to.
        sweep: under which conditions.
        rounds: how many turns each gets.
        required: what each bundle must be.
        isolated: measure each bundle in a process without network and other files.
    """

    bundles: tuple[Path, ...]
    sweep: Sweep
    rounds: int
    required: Requirement = NO_REQUIREMENT
    isolated: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "bundles", tuple(Path(bundle) for bundle in self.bundles))


class Host(Protocol):
    """A machine that measures bundles."""

    name: str
    """As its user named it: "ssh://pi@raspberrypi"."""

    def measure(self, request: Request, tell: Tell) -> Report:
        """Bring the bundles there, measure them, bring the result back, and leave nothing behind.

        Raises:
            BundleError: one of them is no bundle, or what comes back is no report.
            InputError: the machine cannot be reached, lacks something, or cannot do what is asked.
            EngineError: a bundle failed there.
        """


_MIB = 1 << 20


@dataclass(frozen=True)
class BenchOptions:
    """What the command is asked for.

    Attributes:
        request: what every machine measures.
        on: the machines, as `--on` names them.
        against: names of peers, which run on this machine alone.
        source: the checkpoint for the peers; None: the bundle's own.
        remote_runtime: of ssh: the runtime's command there; None: it is installed for the measurement.
        data: a file of texts or a folder of audio, which all answer one after the other; None: each runs its model on
            one recorded input.
        column: of its texts; None: "text", "sentence" or the only one.
    """

    request: Request
    on: tuple[str, ...] = (LOCAL,)
    against: tuple[str, ...] = ()
    source: str | None = None
    remote_runtime: str | None = None
    data: str | None = None
    column: str | None = None

    def __post_init__(self) -> None:
        for peer in self.against:
            check_choice(peer, _peers(), "peer", ALIASES)
        if self.against and LOCAL not in self.on:
            raise InputError(f"peers run on this machine alone: expected --on {LOCAL} with --against")
        if self.remote_runtime is not None and not any(on.startswith("ssh://") for on in self.on):
            raise InputError("expected --remote-runtime with --on ssh:// alone: it names the runtime's command there")
        sweep = self.request.sweep
        if self.data is not None and (self.on != (LOCAL,) or sweep.programs or sweep.batches != (1,)):
            raise InputError(
                f"--data runs whole answers on this machine: expected --on {LOCAL} and no --program or --batch"
            )
        if self.data is not None and self.request.isolated:
            raise InputError("--data opens bundles in processes that read the data: expected it without --isolated")
        if self.column is not None and self.data is None:
            raise InputError("--column names the texts of --data: give that, too")
        if len(set(self.on)) != len(self.on):
            raise InputError(f"expected each --on once, as {EXPECTED}")


def bench(options: BenchOptions, tell: Tell, progress: CountProgress | None = None) -> list[Report]:
    """Measure on each machine, one after the other, in the order in which they were named.

    Args:
        options: what is asked for.
        tell: called with a line before each step of another machine.
        progress: called with the finished rounds and all of them, of this machine's measurement.

    Raises:
        BundleError, EngineError, InputError: see `Host.measure`; nothing is measured anywhere if one is wrongly named.
    """
    hosts = [None if on == LOCAL else open_host(on, options.remote_runtime) for on in options.on]
    arenas = _arenas(options.request)
    found = []
    for host in hosts:
        report = _measure_here(options, progress) if host is None else host.measure(options.request, tell)
        rows = tuple(replace(row, arena_mb=arenas.get((row.bundle_sha256, row.program))) for row in report.rows)
        found.append(replace(report, rows=rows))
    return found


def _measure_here(options: BenchOptions, progress: CountProgress | None) -> Report:
    request = options.request
    required = request.required
    found: dict[tuple[str | None, int], tuple[Contender, ...]] = {}
    cells = []
    with tempfile.TemporaryDirectory() as work:
        if options.data is not None:
            contenders = _over_data(options, Path(options.data), Path(work))
            return measure_cells(
                [Cell(contenders, threads) for threads in request.sweep.threads], request.rounds, progress
            )
        for program, batch, threads in conditions(request.bundles[0], request.sweep, required):
            if (program, batch) not in found:
                folder = Path(work) / str(len(found))
                folder.mkdir()
                found[program, batch] = _contenders(options, program, batch, folder)
            cells.append(Cell(found[program, batch], threads))
        return measure_cells(cells, request.rounds, progress)


def _contenders(options: BenchOptions, program: str | None, batch: int, folder: Path) -> tuple[Contender, ...]:
    """The bundles and the peers on one program; the peers' files go to `folder`."""
    request = options.request
    required = request.required
    contenders = [bundle_contender(path, program, required, batch, request.isolated) for path in request.bundles]
    if options.against:
        with Bundle.open(request.bundles[0], required, allow_refused=True) as first:
            contenders += peer_contenders(options.against, first, options.source, folder, program, batch)
    return tuple(contenders)


def _over_data(options: BenchOptions, data: Path, folder: Path) -> tuple[Contender, ...]:
    """The bundles and the peers on a file of texts."""
    from edgeformer.bench.data import bundle_over, check_peers, over_data

    request, inputs = options.request, folder / "inputs"
    with Bundle.open(request.bundles[0], request.required, allow_refused=True) as first:
        kind = over_data(first)
        check_peers(kind, options.against)
        kind.save(first, data, options.column, request.rounds, inputs)
        contenders = [bundle_over(path, inputs, request.required) for path in request.bundles]
        if options.against:
            from edgeformer.checkpoints.source_index import open_source

            source = open_source(first.manifest, options.source)
            contenders += kind.contenders(options.against, first, source, inputs, folder)
    return tuple(contenders)


def _arenas(request: Request) -> dict[tuple[str | None, str | None], float]:
    """What the activations of each program take at most, in MiB, by the bundle's digest and the program's name.

    A target whose tools are not installed here tells nothing, nor does a file that doctor cannot read.
    """
    from edgeformer.doctor.examination import peak_memory
    from edgeformer.doctor.examiner import examiner_for

    found: dict[tuple[str | None, str | None], float] = {}
    for path in request.bundles:
        with Bundle.open(path, request.required, allow_refused=True) as bundle:
            try:
                view = examiner_for(bundle.manifest.target).read(bundle)
            except (BundleError, EngineError):
                continue
            for program in view.programs:
                found[bundle.manifest_sha256, program.name] = peak_memory(program).size_bytes / _MIB
    return found


# The values of `--on`: which machine measures.


MAX_PORT = 65535
EXPECTED = f"{LOCAL}, ssh://user@host[:port] or adb://SERIAL"

# What no shell and no option parser can misread; IPv6 addresses stand in brackets.
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_ADDRESS = rf"(?:{_NAME}|\[[0-9A-Fa-f:.]+\])"
_SSH = re.compile(rf"(?P<user>{_NAME}@)?(?P<host>{_ADDRESS})(?::(?P<port>[0-9]{{1,5}}))?")
_ADB = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")


def open_host(on: str, remote_runtime: str | None = None) -> Host:
    """The machine that a value of `--on` names, other than this one.

    Args:
        on: "ssh://user@host[:port]" or "adb://SERIAL".
        remote_runtime: of ssh: the command `edgeformer-runtime` as it is called there; None: it is installed for the
            measurement.

    Raises:
        InputError: it names no machine.
    """
    scheme, separator, rest = on.partition("://")
    make = _SCHEMES.get(scheme)
    if not separator or make is None:
        raise InputError(f"expected --on as {EXPECTED}, found {on!r}")
    return make(on, rest, remote_runtime)


def _ssh(on: str, rest: str, remote_runtime: str | None) -> Host:
    found = _SSH.fullmatch(rest.removesuffix("/"))
    if found is None or (found["port"] and not 1 <= int(found["port"]) <= MAX_PORT):
        raise InputError(f"expected ssh://user@host[:port], found {on!r}")
    address = (found["user"] or "") + found["host"].strip("[]")
    return SshHost(on, address, int(found["port"]) if found["port"] else None, remote_runtime)


def _adb(on: str, rest: str, _: str | None) -> Host:
    if not _ADB.fullmatch(rest):
        raise InputError(f"expected adb://SERIAL, as `adb devices` lists them, found {on!r}")
    return AdbHost(on, rest)


_SCHEMES: dict[str, Callable[[str, str, str | None], Host]] = {"ssh": _ssh, "adb": _adb}


# Peers for `bench --against`: other engines on the same weights and the same recorded input, each at its best.
#
# A peer gets what its own tools make of the public model: what our programs leave out is part of the comparison. Its
# factory is called in a process of its own, so it imports only what it needs.


ALIASES = {"ort": ("onnxruntime",), "onnx": ("onnxruntime",), "pytorch": ("torch",), "ggml": ("whisper.cpp",)}
"""What the field calls them."""


def _peers() -> tuple[str, ...]:
    """The peers of all tasks."""
    return tuple(dict.fromkeys(name for task in TASKS.values() for name in task.peers.names))


def peer_contenders(
    names: Sequence[str],
    bundle: Bundle,
    source: str | None,
    folder: Path,
    program: str | None = None,
    batch: int = 1,
) -> list[Contender]:
    """Prepare the named peers' models, and the recorded input that the bundle is measured on, in `folder`.

    Args:
        names: of peers that run models of the bundle's task.
        bundle: whose weights and input the peers get.
        source: the checkpoint; None: where this user converted it from.
        folder: an empty folder that lives as long as the benchmark.
        program: of the bundle, as in `workload`; None: the largest.
        batch: how many inputs a run answers: text and image models take them at once, speech models one by one.

    Raises:
        InputError: a peer that is unknown, does not run such a model or is not installed, or a source whose weights are
            not the bundle's.
    """
    manifest = bundle.manifest
    peers = TASKS[manifest.task].peers
    if peers.contenders is None:
        raise InputError(f"no other engine here runs {manifest.task}: leave --against out")
    for name in names:
        if name not in peers.names:
            raise InputError(
                f"the peer {name!r} does not run {manifest.task}: {did_you_mean(name, peers.names)}"
                f"expected one of {', '.join(peers.names)}"
            )
    from edgeformer.checkpoints.source_index import (
        open_source,  # it imports torch, which a benchmark without peers has no use for
    )

    checkpoint = open_source(manifest, source)
    try:
        contenders = cast(Callable[..., list[Contender]], load_attribute(peers.contenders))
        return contenders(names, bundle, checkpoint, folder, program, batch)
    except ImportError as error:
        raise InputError(f"a peer needs the package {error.name}: pip install 'edgeformer[peers]'") from None
