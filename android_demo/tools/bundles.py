"""Converts checkpoints into the bundles that the app ships with, and into one bundle per attention kernel."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from android_demo.tools.fetch import cache_folder, run
from build_tools.code_key import code_key

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


SHIPPED = (
    Conversion("clinc150-mobilebert", "intents", "onnx", "dynamic-int8", ("--seq-len", "32")),
    Conversion("cifar10-tinyvit", "things", "onnx", "dynamic-int8"),
)
"""What the APK holds: for the one engine whose native libraries a registry has."""


def converted(conversion: Conversion) -> Path:
    """The bundle of a conversion, made once for a state of the code and kept in the cache."""
    target = cache_folder() / "bundles" / code_key(repr(conversion)) / conversion.folder_name
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".convert-", dir=target.parent) as scratch:
            convert(conversion, Path(scratch))
            made = Path(scratch) / conversion.folder_name
            if not target.is_dir():
                made.rename(target)
    return target


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
