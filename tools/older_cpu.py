"""`make older-cpu`: bundles that this machine makes, verified on an emulated x86 CPU without VNNI.

    python -m tools.older_cpu

Engines choose other int8 kernels there: those of ONNX Runtime saturate unless they are told not to. A CPU of this kind
(AVX2 alone) and one with VNNI must both answer within the recorded tolerances, whichever of them made the bundle.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools import debian
from tools.conversions import INTENTS_ONNX, THINGS_ONNX, bundles
from tools.pi.bundles import MODELS

EMULATOR = ("qemu-x86_64-static", "-cpu", "Haswell")
COMMAND = "from edgeformer_runtime.cli import main; main()"
CONCURRENT = 2

# LiteRT's, of texts and images: speech takes ten minutes in emulation and has no other kernels.
LITERT_MODELS = tuple(model for model in MODELS if model.name != "speech")
ONNX_MODELS = (INTENTS_ONNX, THINGS_ONNX)


def emulated(arguments: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """This environment's Python on the emulated CPU; what it prints, as `stdout`."""
    return subprocess.run(
        [*EMULATOR, sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def verify(bundle: Path) -> bool:
    """Whether a bundle's vectors agree there; says so, or what was found."""
    done = emulated(["-c", COMMAND, "verify", bundle])
    print(f"  {'FAILED' if done.returncode else 'ok':6} {bundle.name}", flush=True)
    if done.returncode:
        print(done.stdout, flush=True)
    return done.returncode == 0


def main() -> int:
    """Verify everything; the exit code: 0 all agrees, 1 a bundle does not, 2 it cannot run here."""
    if platform.machine() != "x86_64":
        print("make older-cpu: nothing to do: this machine's CPU is no x86")
        return 0
    try:
        debian.install({EMULATOR[0]: "qemu-user-static"})
        made = bundles((*LITERT_MODELS, *ONNX_MODELS))
    except debian.SetupError as error:
        print(f"make older-cpu: {error}", file=sys.stderr)
        return 2
    with ThreadPoolExecutor(CONCURRENT) as pool:
        return 0 if all(list(pool.map(verify, made))) else 1


if __name__ == "__main__":
    sys.exit(main())
