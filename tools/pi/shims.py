"""ExecuTorch without torch on the emulated Pi: the shim, cross-compiled, beside the same shim on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tests.checkpoint_factory import save_mobilebert
from tests.edgeformer.compress.tiny import save_tinyvit
from tools import debian
from tools.conversions import Model
from tools.pi.bundles import SPEECH
from tools.pi.comparison import Comparison, compare_files
from tools.pi.emulated_pi import EmulatedPi, clean_environment

CHOICE = "EDGEFORMER_EXECUTORCH"
SHIM_TEXTS = Model(
    "texts",
    ("fp32", "dynamic-int8"),
    lambda folder: str(save_mobilebert(folder, num_hidden_layers=1, normalization_type="layer_norm")),
    seq_lens=(16,),
    target="executorch",
)
MODELS = (
    SHIM_TEXTS,
    Model("images", ("fp32",), lambda folder: str(save_tinyvit(folder)), target="executorch"),
    replace(SPEECH, precisions=("fp32",), target="executorch"),
)
"""Narrow ones, as lowering those of the zoo takes a minute per precision. That of texts has int8's kernels."""

COMPILER = "aarch64-linux-gnu-g++"
"""No compiler runs in the emulation, which cannot start the programs that a compiler starts."""

_OUTPUTS = Path(__file__).with_name("outputs.py")
_COMMAND = "from edgeformer_runtime.cli.app import main; main()"


def compare_shims(pi: EmulatedPi, made: Mapping[Path, str]) -> list[Comparison]:
    """Build the shim for both machines; verify bundles on the emulated one, and compare their outputs on both.

    Args:
        pi: with the runtime, and executorch's aarch64 wheel, installed.
        made: the bundles' folders with their precisions.

    Raises:
        SetupError: a build failed, or a bundle diverges from its vectors there.
    """
    debian.install({COMPILER: "g++-aarch64-linux-gnu"})
    here, there = build(None, None), build(pi.site_packages, COMPILER)
    with tempfile.TemporaryDirectory(prefix="edgeformer-pi-") as scratch:
        folders = Path(scratch, "here"), Path(scratch, "there")
        for folder, python, shim in zip(folders, (Path(sys.executable), pi.python), (here, there), strict=True):
            folder.mkdir()
            _run(python, shim, _OUTPUTS, folder, *made)
        for path in made:
            _run(pi.python, there, "-c", _COMMAND, "verify", path)
        return [
            compare_files(path.name, precision, *(folder / f"{path.name}.npz" for folder in folders))
            for path, precision in made.items()
        ]


def build(wheel: Path | None, compiler: str | None) -> Path:
    """The folder of a shim, kept between runs where it changes nobody's choice of a runtime.

    Args:
        wheel: the folder where executorch's wheel is unpacked; None: this environment's.
        compiler: for another machine; None: this machine's.
    """
    command = [str(Path(sys.executable).with_name("edgeformer-runtime")), "build-executorch", "--json"]
    command += ["--wheel", str(wheel)] if wheel else []
    environment = os.environ | {"XDG_CACHE_HOME": str(debian.cache_folder() / "pi-shims")}
    environment |= {"CXX": compiler} if compiler else {}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise debian.SetupError("the ExecuTorch shim was not built")
    return Path(json.loads(done.stdout)["folder"])


def _run(python: Path, shim: Path, *arguments: str | Path) -> None:
    environment = clean_environment() | {CHOICE: str(shim)}
    if subprocess.run([python, *arguments], env=environment, check=False).returncode:
        raise debian.SetupError(f"{python.name} {' '.join(map(str, arguments))}: failed")
