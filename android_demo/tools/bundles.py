"""Converts checkpoints into the bundles that the app ships with, and into one bundle per attention kernel."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from android_demo.tools.fetch import BuildError, run
from tools.debian import SetupError

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Conversion:
    """A call of `edgeformer convert`.

    Attributes:
        source: a checkpoint.
        name: the bundle's name.
        target: its target.
        precision: its precision.
        options: further arguments.
    """

    source: str
    name: str
    target: str
    precision: str
    options: tuple[str, ...] = ()

    @property
    def folder_name(self) -> str:
        """The name of the folder that `convert` makes."""
        return f"{self.name}.{self.target}.{self.precision}"

    def arguments(self, out: Path) -> list[str]:
        """The command line."""
        what = ["--name", self.name, "--target", self.target, "--precision", self.precision]
        return ["convert", self.source, *what, *self.options, "--out", str(out)]


def shipped() -> list[Path]:
    """What the APK holds: bundles for the one engine whose native libraries a registry has, made once for all builds.

    Raises:
        BuildError: a gate failed.
    """
    from tools import conversions  # brings torch, which nothing else here needs

    try:
        made = conversions.bundles((conversions.INTENTS_ONNX, conversions.THINGS_ONNX))
    except SetupError as error:
        raise BuildError(str(error)) from None
    return [path for path, precision in made.items() if precision == "dynamic-int8"]


def convert(conversion: Conversion, out: Path) -> None:
    """Run `edgeformer convert` of this environment.

    Raises:
        BuildError: it refused, or a gate failed.
    """
    print(f"  converting {conversion.folder_name}", flush=True)
    run([str(Path(sys.executable).with_name("edgeformer")), *conversion.arguments(out)], REPOSITORY)


def install(bundles: Sequence[Path], assets: Path) -> None:
    """Fill the folder of generated assets, which both builds take: bundles, and the project's licence."""
    shutil.rmtree(assets, ignore_errors=True)
    for bundle in bundles:
        shutil.copytree(bundle, assets / "bundles" / bundle.name)
    (assets / "licenses").mkdir()
    shutil.copyfile(REPOSITORY / "LICENSE", assets / "licenses" / "edgeformer.txt")
