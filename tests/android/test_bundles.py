"""Which bundles are made for the app, and when again."""

from __future__ import annotations

from pathlib import Path

import pytest

from android_demo.make_kernel_bundles import conversions as kernel_conversions
from android_demo.tools import bundles
from android_demo.tools.fetch import BuildError
from edgeformer.attention import KERNELS
from tools import conversions
from tools.debian import SetupError


def test_every_attention_kernel_gets_a_bundle_of_its_name() -> None:
    made = kernel_conversions("some/MiniLM", "litert", "fp32")
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


def test_the_app_ships_the_int8_bundles_of_the_shared_conversions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        conversions,
        "bundles",
        lambda models: {Path(f"{each.name}.{name}"): name for each in models for name in each.precisions},
    )
    assert [path.name for path in bundles.shipped()] == ["intents.dynamic-int8", "things.dynamic-int8"]


def test_a_failed_gate_ends_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise SetupError("intents.onnx.fp32: diverges")

    monkeypatch.setattr(conversions, "bundles", fail)
    with pytest.raises(BuildError, match=r"intents\.onnx\.fp32: diverges"):
        bundles.shipped()
