"""The process of `hostile_bundles.py` that opens mutated bundles: one line of JSON for each."""

from __future__ import annotations

import ctypes
import json
import os
import random
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from file_mutations import MODEL_KINDS, corrupt_file, kind_of
from mutations import Files, reseal

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import MANIFEST_NAME, Manifest
from edgeformer_runtime.errors import EdgeFormerError
from edgeformer_runtime.model_files import check_model_files, read_contents

HANG_SECONDS = 5.0
MEMORY_FACTOR = 2.0
MAX_MESSAGE = 1000
# Parts of an error's message that say that a library failed in a way of its own, or its process did.
UNEXPLAINED = ("please report", "its process ended", "gave no answer", "the isolated bundle failed", "Traceback")
SYSTEM = ("/usr", "/lib", "/lib64", "/proc", "/sys", "/dev", "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types")
OUR_MEMORY = "/memfd:packed weights"
"""No file, but memory that the LiteRT engine gives a name."""
_IN_OPEN, _IN_NONBLOCK, _IN_CLOEXEC = 0x20, 0o4000, 0o2000000


class Watch:
    """Which files are opened that are none of this process's business.

    An audit hook sees what Python opens; inotify sees what libraries open of the files that mutations point to.
    """

    def __init__(self, place: Path) -> None:
        """`place` is where the bundle is."""
        self.seen: list[str] = []
        self._is_on = False
        temporary = place.parent / "temporary"
        temporary.mkdir()
        tempfile.tempdir = str(temporary)
        # Of editable installations, which need not be on the path. Core ML's reference engine imports all three.
        ours = ("edgeformer_runtime", "edgeformer", "edgeformer_converters")
        packages = [Path(each.origin).parent for each in map(find_spec, ours) if each is not None and each.origin]
        libraries = [temporary, *packages, sys.prefix, sys.base_prefix, *(each for each in sys.path if each), *SYSTEM]
        if Path(shim := os.environ.get("EDGEFORMER_EXECUTORCH", "")).is_absolute():
            libraries.append(shim)
        self._allowed = (*(str(Path(each).resolve()) for each in (place, *libraries)), OUR_MEMORY)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._notify = -1
        if sys.platform == "linux":
            self._notify = self._libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
            # Not what others open all the time, such as /etc/passwd.
            for path in (place / "outside.bin", place.parent / "outside.bin"):
                path.write_bytes(bytes(1000))
                self._libc.inotify_add_watch(self._notify, os.fsencode(path), _IN_OPEN)
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._is_on and event in ("open", "os.listdir", "os.scandir") and not isinstance(arguments[0], int):
            path = os.path.realpath(os.fsdecode(arguments[0] or "."))
            if not path.startswith(self._allowed):
                self.seen.append(path)

    def __enter__(self) -> Watch:
        self.seen.clear()
        self._is_on = True
        return self

    def __exit__(self, *_: object) -> None:
        self._is_on = False
        if self._notify >= 0:
            try:
                if os.read(self._notify, 1 << 16):
                    self.seen.append("a file outside, by a library")
            except BlockingIOError:
                pass


class Peak:
    """The peak of resident memory, of this process or of the helpers that ended, in bytes."""

    def __init__(self, of_helpers: bool) -> None:
        self._of_helpers = of_helpers

    def begin(self) -> None:
        """Forget what was."""
        if not self._of_helpers:
            Path("/proc/self/clear_refs").write_text("5")

    def end(self) -> int:
        """What it was. The helpers' never falls, as the system keeps the largest."""
        if self._of_helpers:
            return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) << 10


@dataclass(frozen=True)
class Original:
    """A recording bundle: its files, its manifest, and the peak of memory with which it opens and runs."""

    folder: Path
    files: Files
    names: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path, kinds: list[str]) -> Original:
        """Its files, and which of them are corrupted; model files count for half of all."""
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        names = [name for name in sorted(files) if kind_of(name) is not None and (not kinds or kind_of(name) in kinds)]
        models = [name for name in names if kind_of(name) in MODEL_KINDS]
        others = [name for name in names if name not in models]
        repeated = models * max(1, len(others) // max(1, len(models)))
        return cls(folder, files, (*others, *repeated))


def use_readers(folder: Path) -> str:
    """All but the model itself."""
    from tiny_speech_bundle import NoiseEngine

    from edgeformer_runtime.cli.tables import bundle_table
    from edgeformer_runtime.verify.verify import verify

    with Bundle.open(folder) as bundle:
        bundle_table(bundle)
        ends = "ok"
        try:
            check_model_files(bundle)
        except EdgeFormerError as error:
            check_message(str(error))
            ends = "refused model"
        verify(bundle, NoiseEngine(bundle.manifest.programs))
        return ends


def use_engine(folder: Path) -> str:
    """What `run` and `verify` do."""
    from edgeformer_runtime.engines import open_engine
    from edgeformer_runtime.pipelines import open_pipeline
    from edgeformer_runtime.verify.verify import verify

    with Bundle.open(folder) as bundle:
        if bundle.manifest.target == "coreml":
            from edgeformer.convert.target import verification_engine

            engine = verification_engine(bundle)
            assert engine is not None
        else:
            engine = open_engine(bundle)
        try:
            _ask(open_pipeline(bundle, engine), bundle.manifest, folder)
            found = verify(bundle, engine)
        finally:
            engine.close()
    for stage in found.stages:
        if stage.reason is not None:
            check_message(stage.reason)
    return "ok" if found.ok else "diverges"


def use_isolated(folder: Path) -> str:
    """`load(path, isolated=True)`, an answer, and a verification in the same helper."""
    from edgeformer_runtime import load
    from edgeformer_runtime.isolation.process import Frame

    with load(folder, isolated=True) as pipeline:
        engine: Any = pipeline.engine
        assert {"limits", "seccomp"} <= set(engine.confined), engine.confined
        _ask(pipeline, pipeline.bundle.manifest, folder)
        answer = engine.helper.ask(Frame({"question": "verify"}), engine.limits.open_s)
        return "ok" if answer.header["verification"]["ok"] else "diverges"


def _ask(pipeline: Any, manifest: Manifest, folder: Path) -> None:
    """An input of each kind; of images and recordings the bundle's own, which may be the corrupted one."""
    kind = manifest.preprocessing.kind
    inputs: list[Any] = ["turn the lights off", "", "x" * 5000] if kind == "text" else []
    if kind != "text":
        inputs = [path for path in sorted((folder / "vectors").iterdir()) if kind_of(path.name) in ("image", "audio")][
            :3
        ]
    for each in inputs:
        try:
            pipeline.run(each)
        except EdgeFormerError as error:
            check_message(str(error))


USES: dict[str, Callable[[Path], str]] = {"readers": use_readers, "engine": use_engine, "isolated": use_isolated}


class Unexplained(Exception):
    """A message that tells the user nothing."""


def check_message(message: str) -> None:
    """Hold an error's message to one short line that explains."""
    if not message or "\n" in message or len(message) >= MAX_MESSAGE or any(part in message for part in UNEXPLAINED):
        raise Unexplained(message)


@dataclass(frozen=True)
class Outcome:
    """How one bundle ended."""

    end: str
    seconds: float
    peak_bytes: int
    wrong: tuple[str, ...]


class Worker:
    """Uses bundles one way and watches what comes of it."""

    def __init__(self, way: str, work: Path) -> None:
        self._use = USES[way]
        self._place = work / "place"
        self._peak = Peak(of_helpers=way == "isolated")
        self._place.mkdir()
        self._watch = Watch(self._place)
        self._number = 0

    def state_operators(self, files: Files) -> None:
        """Let the manifest state the operators that the model files have, as whoever makes them to harm would."""
        folder = self._written(files)
        try:
            with Bundle.open(folder) as bundle:
                manifest = json.loads(files[MANIFEST_NAME]) | {"operators": read_contents(bundle).operators}
        except EdgeFormerError:  # refused, whatever is stated
            return
        finally:
            shutil.rmtree(folder)
        files[MANIFEST_NAME] = json.dumps(manifest).encode()

    def _written(self, files: Files) -> Path:
        self._number += 1
        folder = self._place / str(self._number)  # a file that is mapped is never overwritten
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return folder

    def try_files(self, files: Files) -> Outcome:
        """Use a bundle of these files."""
        folder = self._written(files)
        wrong = []
        self._peak.begin()
        start = _processor_seconds()
        with self._watch as watch:
            try:
                end = self._use(folder)
            except EdgeFormerError as error:
                end = type(error).__name__
                try:
                    check_message(str(error))
                except Unexplained:
                    wrong.append(f"unexplained: {error}")
            except BaseException as error:
                end = type(error).__name__
                wrong.append(f"unexplained {end}: {error}"[:MAX_MESSAGE])
        seconds = _processor_seconds() - start
        wrong += [f"opened {path}" for path in sorted(set(watch.seen))]
        outcome = Outcome(end, seconds, self._peak.end(), tuple(wrong))
        shutil.rmtree(folder)
        return outcome


def _processor_seconds() -> float:
    """Of this process, and of the helpers that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


@lru_cache
def _original(folder: Path, kinds: tuple[str, ...]) -> Original:
    return Original.read(folder, list(kinds))


def work(bundles: list[Path], way: str, seeds: range, kinds: list[str], place: Path) -> None:
    """Try every seed and print a line for each."""
    worker = Worker(way, place)
    allowed: dict[Path, float] = {}
    needed: dict[Path, float] = {}  # a helper imports its libraries for every bundle
    for folder in (*bundles, *bundles):  # twice, as at first libraries are imported
        intact = worker.try_files(_original(folder, tuple(kinds)).files)
        if intact.wrong or intact.end not in ("ok", "diverges"):
            raise SystemExit(f"{folder.name} itself: {intact}")
        allowed[folder], needed[folder] = intact.peak_bytes, intact.seconds
    if way == "isolated":  # the largest peak of all helpers is all that the system tells
        allowed = dict.fromkeys(bundles, max(allowed.values()))
    for seed in seeds:
        print(f"seed {seed}", file=sys.stderr, flush=True)
        generator = random.Random(seed)
        folder = generator.choice(bundles)
        original = _original(folder, tuple(kinds))
        files = dict(original.files)
        name = generator.choice(original.names)
        corrupt_file(files, name, generator)
        reseal(files)
        if kind_of(name) in MODEL_KINDS:
            worker.state_operators(files)
        outcome = worker.try_files(files)
        wrong = list(outcome.wrong)
        if outcome.seconds > HANG_SECONDS + needed[folder]:
            wrong.append(f"it took {outcome.seconds:.1f} s")
        memory = outcome.peak_bytes / allowed[folder]
        if memory > MEMORY_FACTOR:
            wrong.append(f"{outcome.peak_bytes >> 20} MiB where the bundle takes {int(allowed[folder]) >> 20}")
        line = {"seed": seed, "bundle": folder.name, "file": name, "kind": kind_of(name), "end": outcome.end,
                "seconds": round(outcome.seconds, 3), "memory": round(memory, 3), "wrong": wrong}  # fmt: skip
        print(json.dumps(line), flush=True)
        if wrong and way == "isolated":
            allowed = {each: max(allowed[each], outcome.peak_bytes / MEMORY_FACTOR) for each in allowed}
