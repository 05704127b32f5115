"""Converts one checkpoint with each attention kernel, for the Bench screen to compare on a device.

    .venv/bin/python android_demo/make_kernel_bundles.py SOURCE --out DIR [--target onnx] [--precision fp32] [--push]

A bundle's manifest names its kernel, so the app needs to know nothing else.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from android_demo.tools.bundles import Conversion, convert
from android_demo.tools.toolchain import NAMESPACE
from edgeformer.attention import KERNELS
from edgeformer_runtime.errors import EdgeFormerError

DEVICE_FOLDER = f"/sdcard/Android/data/{NAMESPACE}/files/bundles"
"""Where the app finds bundles that are pushed over USB."""


def conversions(source: str, target: str, precision: str) -> list[Conversion]:
    """One conversion per kernel, named after it."""
    name = Path(source).name.lower()
    return [Conversion(source, f"{name}-{kernel}", target, precision, ("--attention", kernel)) for kernel in KERNELS]


def main() -> int:
    """Convert for each target; the exit code: 0 done, 1 a conversion or a push failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", default="clinc150-mobilebert", help="a checkpoint, as for convert")
    parser.add_argument("--target", action="append", choices=["litert", "executorch", "onnx"], help="default: onnx")
    parser.add_argument("--precision", default="fp32", help="as for convert; default: fp32")
    parser.add_argument("--out", type=Path, required=True, help="the folder for the bundles")
    parser.add_argument("--push", action="store_true", help="copy them to the app on the connected phone with adb")
    arguments = parser.parse_args()
    try:
        for target in arguments.target or ["onnx"]:
            for conversion in conversions(arguments.source, target, arguments.precision):
                convert(conversion, arguments.out.resolve())
                made = arguments.out / conversion.folder_name
                if arguments.push:
                    subprocess.run(["adb", "push", str(made), f"{DEVICE_FOLDER}/{made.name}"], check=True)
    except (EdgeFormerError, OSError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
