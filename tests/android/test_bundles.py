"""Which bundles are made for the app, and when again."""

from __future__ import annotations

from pathlib import Path

import pytest

from android_demo.make_kernel_bundles import conversions
from android_demo.tools import bundles
from android_demo.tools.bundles import Conversion
from edgeformer.attention import KERNELS


def test_every_attention_kernel_gets_a_bundle_of_its_name() -> None:
    made = conversions("some/MiniLM", "litert", "fp32")
    assert [conversion.folder_name for conversion in made] == [f"minilm-{kernel}.litert.fp32" for kernel in KERNELS]
    for kernel, conversion in zip(KERNELS, made, strict=True):
        arguments = conversion.arguments(Path("out"))
        assert arguments[arguments.index("--attention") + 1] == kernel


def test_installed_assets_hold_bundles_and_the_licence(tmp_path: Path) -> None:
    bundle = tmp_path / "a.onnx.fp32"
    (bundle / "vectors").mkdir(parents=True)
    (bundle / "vectors" / "cases.json").write_text("{}")
    assets = tmp_path / "assets"
    (assets / "old").mkdir(parents=True)
    bundles.install([bundle], assets)
    files = {path.relative_to(assets).as_posix() for path in assets.rglob("*") if path.is_file()}
    assert files == {"bundles/a.onnx.fp32/vectors/cases.json", "licenses/edgeformer.txt"}


def test_a_conversion_is_kept_for_its_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEFORMER_CACHE", str(tmp_path))
    made: list[Conversion] = []

    def convert(conversion: Conversion, out: Path) -> None:
        made.append(conversion)
        (out / conversion.folder_name).mkdir()

    monkeypatch.setattr(bundles, "convert", convert)
    first, second = Conversion("a", "a", "onnx", "fp32"), Conversion("a", "a", "onnx", "fp32", ("--seq-len", "64"))
    folders = [bundles.converted(conversion) for conversion in (first, first, second)]
    assert made == [first, second]
    assert folders[0] == folders[1] != folders[2]
