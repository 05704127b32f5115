"""How many instructions an answer takes on the emulated Pi, which tells more of ARM than an emulator's clock.

A count says nothing of how long an instruction takes, or waits for memory: a product of int8 does in one instruction
what takes four in float, and neither shows what the caches hold. So ratios of engines are hints, not latencies.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tools import debian
from tools.conversions import INTENTS_ONNX, bundles
from tools.pi.bundles import MODELS
from tools.pi.emulated_pi import EMULATOR, PYTHON_VERSION, EmulatedPi, clean_environment
from tools.pi.shims import CHOICE, SHIM_TEXTS

NOT_SAID = (
    "counts say nothing of how long an instruction takes or waits for memory: they are hints at what is slow on ARM, "
    "not latencies"
)
QEMU = ("qemu-aarch64", *EMULATOR[1:])
"""The same emulator with support for plugins, which Debian's static one lacks."""

_PLUGIN, _ANSWERS = Path(__file__).with_name("instructions.c"), Path(__file__).with_name("answers.py")
_COUNT = re.compile(r"^instructions: (\d+)$", re.MULTILINE)
_LONGEST_S = 300.0


@dataclass(frozen=True)
class Counted:
    """An answer of a bundle.

    Attributes:
        bundle: its name.
        instructions: of one text, tokens to label.
        ratio: to the first bundle of the same checkpoint.
    """

    bundle: str
    instructions: int
    ratio: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def compared_bundles() -> list[list[Path]]:
    """Bundles of one checkpoint each, first the one that others are compared with.

    Those of the zoo's classifier are made for other checks. ExecuTorch's is a narrow model's, which LiteRT has, too.
    """
    (intents,) = (model for model in MODELS if model.name == "intents")
    narrow = replace(SHIM_TEXTS, target="litert")
    onnx = [path for path, precision in bundles([INTENTS_ONNX]).items() if precision == "dynamic-int8"]
    return [[*bundles([intents]), *onnx], [*bundles([narrow]), *bundles([SHIM_TEXTS])]]


def count_instructions(pi: EmulatedPi, compared: Sequence[Sequence[Path]], shim: Path) -> list[Counted]:
    """Count for each bundle.

    Args:
        pi: with the runtime and the engines installed.
        compared: as `compared_bundles` gives them.
        shim: the folder of ExecuTorch's, for that machine.

    Raises:
        SetupError: the emulator or the compiler is missing, or a run failed.
    """
    debian.install({QEMU[0]: "qemu-user", "gcc": "gcc"})
    with tempfile.TemporaryDirectory(prefix="edgeformer-pi-") as scratch:
        plugin = build_plugin(Path(scratch))
        command = [*QEMU, "-plugin", str(plugin), "-L", str(pi.root)]
        command.append(str(pi.root / "usr" / "bin" / f"python{PYTHON_VERSION}"))
        found: list[Counted] = []
        for paths in compared:
            counts = [_count([*command, str(_ANSWERS), str(path)], {CHOICE: str(shim)}) for path in paths]
            found += [Counted(path.name, count, count / counts[0]) for path, count in zip(paths, counts, strict=True)]
    return found


def build_plugin(folder: Path) -> Path:
    """The plugin for this machine's qemu, compiled into a folder."""
    told = subprocess.run([QEMU[0], "--version"], capture_output=True, text=True, check=True).stdout
    release = re.search(r"version (\d+)", told)
    # qemu 9 takes no plugins of the interface's first version, and qemu 8 none of the second.
    version = 1 if release is not None and int(release[1]) < 9 else 2
    plugin = folder / "instructions.so"
    flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", f"-DPLUGIN_VERSION={version}"]
    debian.call(["gcc", *flags, "-o", str(plugin), str(_PLUGIN)])
    return plugin


def _count(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """The instructions between the two times that the program asked."""
    try:
        done = subprocess.run(
            command,
            env={**clean_environment(), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise debian.SetupError(f"{command[-1]}: no answer in {_LONGEST_S:.0f} s of emulation") from None
    return instructions_between(done.stdout, command[-1])


def instructions_between(printed: str, what: str) -> int:
    """The difference of the two counts in what a run printed.

    Raises:
        SetupError: there are not two.
    """
    counts = [int(count) for count in _COUNT.findall(printed)]
    if len(counts) != 2:
        raise debian.SetupError(f"{what}: expected two counts of instructions, found {len(counts)}: {printed.strip()}")
    return counts[1] - counts[0]
