"""Conversions are made once for a state of the code, whoever asks first."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeformer.convert.options import ConvertOptions
from tools import conversions
from tools.conversions import Model, bundles, kept
from tools.debian import SetupError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEFORMER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / conversions.FOLDER


def fill(made: Path, scratch: Path) -> None:
    (scratch / "left over").mkdir()
    (made / "bundle").mkdir()


def test_what_is_made_is_kept_until_the_code_changes(cache: Path) -> None:
    calls: list[Path] = []

    def make(made: Path, scratch: Path) -> None:
        calls.append(made)
        fill(made, scratch)

    first = [kept("it", "1", make), kept("it", "1", make), kept("other", "1", make)]
    assert len(calls) == 2 and first[0] == first[1] != first[2]
    second = kept("it", "2", make)
    assert len(calls) == 3 and second != first[0] and not first[0].exists() and first[2].exists()
    assert sorted(path.name for path in (cache / "it").iterdir()) == ["2", "lock"]
    assert [path.name for path in second.iterdir()] == ["bundle"]


def test_askers_at_once_wait_for_the_first() -> None:
    calls: list[Path] = []

    def make(made: Path, scratch: Path) -> None:
        calls.append(made)
        fill(made, scratch)

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: kept("it", "1", make), range(8)))) == 1
    assert len(calls) == 1


def test_what_fails_is_not_kept(cache: Path) -> None:
    def fail(made: Path, scratch: Path) -> None:
        fill(made, scratch)
        raise SetupError("no")

    with pytest.raises(SetupError):
        kept("it", "1", fail)
    assert [path.name for path in (cache / "it").iterdir()] == ["lock"]
    assert kept("it", "1", fill).is_dir()


def test_a_model_is_converted_once_to_all_its_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[ConvertOptions] = []

    def convert(options: ConvertOptions) -> list[SimpleNamespace]:
        asked.append(options)
        assert options.calibration is None or len(list(Path(options.calibration).iterdir())) > 10
        paths = [Path(options.out) / f"{options.name}.{options.targets[0]}.{each}" for each in options.precisions]
        for path in paths:
            path.mkdir()
        return [SimpleNamespace(ok=True, path=path, problems=()) for path in paths]

    monkeypatch.setattr(conversions, "convert", convert)
    plain = Model("it", ("fp32", "dynamic-int8"), lambda _: "somewhere")
    calibrated = Model("it", ("fp32", "dynamic-int8"), lambda _: "somewhere", takes_images=True)
    made = bundles((plain, calibrated))
    assert bundles((plain, calibrated)) == made
    assert [path.name for path in made] == ["it.litert.fp32", "it.litert.dynamic-int8"] * 2
    assert list(made.values()) == ["fp32", "dynamic-int8"] * 2 and all(path.is_dir() for path in made)
    assert [options.calibration is None for options in asked] == [True, False]
    for options in asked:
        options.check_for("image-classification")  # as `convert` does, which the test replaces


def test_a_failed_gate_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    row = SimpleNamespace(ok=False, path=Path("it.litert.fp32"), problems=("diverges", "is large"))
    monkeypatch.setattr(conversions, "convert", lambda _: [row])
    with pytest.raises(SetupError, match=r"it\.litert\.fp32: diverges; is large"):
        bundles((Model("it", ("fp32",), lambda _: "somewhere"),))
