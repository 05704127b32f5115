"""Reports of folders as people have them: strangers' files, bundles alone, bundles that answer other data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgeformer.cli import app
from edgeformer.evaluate.evaluate import Answers, share_interval
from edgeformer.evaluate.speech import word_error_interval
from edgeformer.report.collect import Variant, collect
from edgeformer.report.html_page import page_of
from edgeformer.report.page import page, pareto
from edgeformer.tasks.speech import WORD_ERRORS
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.folder import bundle_around
from edgeformer_runtime.bundle.manifest import MANIFEST_NAME, REPORT_FILE, parse
from edgeformer_runtime.errors import InputError
from tests.runtime import tiny_bundle
from tests.runtime.tiny_bundle import make_onnx, seal

DATA = [["turn the lights off", "lights"], ["what is the weather", "weather"], ["hello", "greeting"]]


def reseal(folder: Path) -> None:
    seal(folder, parse((folder / MANIFEST_NAME).read_bytes()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one bundle that says fp32, and whose checkpoint nobody knows."""
    place = tmp_path / "dist"
    place.mkdir()
    make_onnx(place / "tiny.onnx.fp32")
    return place


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "data.json"
    file.write_text(json.dumps(DATA))
    return file


STRANGE: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"\xff\xfe",
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "agreement a list": b'{"agreement": [1], "problems": []}',
    "agreement a text": b'{"agreement": "all", "problems": {}}',
    "agreement without n": b'{"agreement": {"top1": 0.5}}',
    "a share that is a text": b'{"agreement": {"top1": "x", "n": 3}, "problems": "no"}',
    "a share above one": b'{"agreement": {"top1": 7, "n": 3}}',
    "a share that is true": b'{"agreement": {"top1": true, "n": true}}',
    "n a huge number": b'{"agreement": {"top1": 0.5, "n": 1' + b"0" * 400 + b"}}",
    "n a fraction": b'{"agreement": {"top1": 0.5, "n": 1.5}}',
    "NaN": b'{"agreement": {"top1": NaN, "n": 3}}',
    "problems of all kinds": b'{"problems": [1, null, ["x"], {"a": 1}]}',
    "deep": b"[" * 100_000,
    "doubled": b'{"problems": [], "problems": ["x"]}',
    "large": b'"' + b"x" * (5 << 20) + b'"',
}


@pytest.mark.parametrize("content", STRANGE.values(), ids=STRANGE)
def test_a_strangers_report_is_no_reason_to_stop(folder: Path, content: bytes) -> None:
    bundle = folder / "tiny.onnx.fp32"
    (bundle / REPORT_FILE).write_bytes(content)
    reseal(bundle)
    (variant,) = collect(folder).variants
    assert (variant.agreement, variant.n) == (None, None)
    assert variant.note is None or len(variant.note) < 1000
    page(collect(folder))


def test_what_a_report_says_in_the_right_types_is_told(folder: Path) -> None:
    bundle = folder / "tiny.onnx.fp32"
    said = {"agreement": {"top1": 0.75, "n": 120}, "problems": ["a\u202e\x1b[31m<b>", *["more"] * 50]}
    (bundle / REPORT_FILE).write_text(json.dumps(said))
    reseal(bundle)
    (variant,) = collect(folder).variants
    assert (variant.agreement, variant.n) == (0.75, 120)
    assert variant.note is not None and variant.note.startswith("a\\u202e\\x1b[31m<b>; more")
    assert "\u202e" not in variant.note and variant.note.count("more") == 7


def corrupt(bundle: Path) -> None:
    (bundle / "model.bin").write_bytes(b"x") if (bundle / "model.bin").exists() else (bundle / "more").write_bytes(b"x")


def test_a_corrupted_bundle_is_noted_and_the_rest_is_told(folder: Path) -> None:
    make_onnx(folder / "other")
    corrupt(folder / "other")
    found = collect(folder)
    assert [each.name for each in found.variants] == ["tiny.onnx.fp32"]
    assert len(found.notes) == 1 and found.notes[0].startswith("other is left out: ")
    assert "other is left out" in page(found)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("edgeformer.json", {"steps": 3}),
        ("edgeformer.json", {"steps": [{"kind": "x", "results": {"accuracy": "y"}}]}),
        ("search.json", {"met": True, "best": 0, "target": "onnx", "points": [{"stage": 1, "values": [], "plan": {}}]}),
        ("search.json", {"met": False, "target": 3, "points": {"a": 1}}),
        ("search.json", []),
        ("sensitivity.json", {"costs": 3}),
    ],
)
def test_strange_files_of_a_checkpoint_are_noted(folder: Path, file: str, content: Any) -> None:
    place = folder / "small"
    place.mkdir()
    (place / "edgeformer.json").write_text("{}")
    (place / file).write_text(json.dumps(content))
    found = collect(folder)
    assert "tiny.onnx.fp32" in [each.name for each in found.variants]
    assert [note for note in found.notes if note.startswith("small is not told in full: ")]
    page(found)


def test_without_a_known_checkpoint_answers_are_compared_with_its_bundle_at_fp32_or_with_nothing(
    folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    precision = parse((folder / "tiny.onnx.fp32" / MANIFEST_NAME).read_bytes()).precision
    found = collect(folder, str(data))
    (variant,) = found.variants
    assert variant.n == 3 and variant.value is not None and variant.interval == share_interval(variant.value, 3)
    assert any("the checkpoint" in note and "was not found on this machine" in note for note in found.notes)
    if precision == "fp32":
        assert variant.agreement == 1.0 and any("compared with tiny.onnx.fp32" in note for note in found.notes)
    bundle = folder / "tiny.onnx.fp32"
    manifest = (
        (bundle / MANIFEST_NAME).read_text().replace(f'"precision": "{precision}"', '"precision": "dynamic-int8"')
    )
    seal(bundle, parse(manifest.encode()))
    found = collect(folder, str(data))
    (variant,) = found.variants
    assert variant.value is not None and variant.agreement is None and variant.changes is None
    assert "as the source</th>" not in page(found)


def test_bundles_that_take_other_data_are_noted(folder: Path, data: Path) -> None:
    make_labelled = folder / "other.onnx.fp32"
    make_onnx(make_labelled)
    text = (make_labelled / MANIFEST_NAME).read_text()
    for number, label in enumerate(tiny_bundle.LABELS):
        text = text.replace(f'"{label}"', f'"unlike {number}"')
    seal(make_labelled, parse(text.encode()))
    found = collect(folder, str(data))
    values = {each.name: each.value for each in found.variants}
    assert values["other.onnx.fp32"] is None and values["tiny.onnx.fp32"] is not None
    assert [note for note in found.notes if note.startswith("other.onnx.fp32 was not asked: ")]


def test_data_that_nothing_answers_are_refused(folder: Path, tmp_path: Path) -> None:
    strange = tmp_path / "strange.json"
    strange.write_text(json.dumps([["a", "none of these"]]))
    with pytest.raises(InputError, match="labels that the bundle does not know"):
        collect(folder, str(strange))


def test_a_bundles_page_lies_beside_it(folder: Path) -> None:
    bundle = folder / "tiny.onnx.fp32"
    before = sorted(bundle.rglob("*"))
    ended = CliRunner().invoke(app, ["report", str(bundle)])
    assert ended.exit_code == 0, ended.output
    assert (folder / "tiny.onnx.fp32.report.html").is_file() and sorted(bundle.rglob("*")) == before
    assert page_of(bundle / "vectors") == folder / "tiny.onnx.fp32.report.html"
    assert page_of(folder) == folder / "report.html"
    Bundle.open(bundle).close()


PLACES: dict[str, Callable[[Path], Path]] = {
    "in it": lambda bundle: bundle / "report.html",
    "below": lambda bundle: bundle / "vectors" / "x.html",
    "through a link": lambda bundle: bundle.parent / "link" / "x.html",
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("command", ["report", "bench"])
def test_no_page_is_written_into_a_bundle(folder: Path, command: str, place: Callable[[Path], Path]) -> None:
    bundle = folder / "tiny.onnx.fp32"
    (folder / "link").symlink_to(bundle)
    ended = CliRunner().invoke(app, [command, str(bundle), "--html", str(place(bundle))])
    assert isinstance(ended.exception, InputError)
    assert "lies in the bundle tiny.onnx.fp32, which it would corrupt: name a place outside" in str(ended.exception)


@pytest.mark.parametrize(
    "command",
    [
        "pack BUNDLE --out BUNDLE/x.zip",
        "sign --new-key BUNDLE/key.pem",
        "convert cifar10-tinyvit --out BUNDLE",
        "compress cifar10-tinyvit --data DATA --recipe tinyvit-narrow --out BUNDLE/x",
    ],
)
def test_no_command_writes_into_a_bundle(folder: Path, command: str) -> None:
    bundle = folder / "tiny.onnx.fp32"
    words = command.replace("BUNDLE", str(bundle)).replace("DATA", __file__).split()
    ended = CliRunner().invoke(app, words)
    assert isinstance(ended.exception, InputError)
    assert "lies in the bundle tiny.onnx.fp32, which it would corrupt: name a place outside" in str(ended.exception)
    Bundle.open(bundle).close()


def test_a_manifest_of_another_program_is_no_bundle(tmp_path: Path) -> None:
    for content in ('{"name": "app", "icons": []}', "[]", "", "\udcff"):
        (tmp_path / MANIFEST_NAME).write_text(content, errors="surrogateescape")
        assert bundle_around(tmp_path / "x" / "y.html") is None


def test_only_variants_of_one_group_are_compared() -> None:
    bundle = Variant("a", "bundle", size_bytes=10, metric="accuracy", value=0.9, group="100 examples of x")
    other = Variant("b", "search", size_bytes=20, metric="accuracy", value=0.8, group="150 examples of y")
    assert pareto([bundle, other]) == (bundle, other)
    same = Variant("c", "bundle", size_bytes=20, metric="accuracy", value=0.8, group="100 examples of x")
    assert pareto([bundle, same]) == (bundle,)


def transcripts(truth: tuple[str, ...], given: tuple[str, ...]) -> Answers:
    return Answers(WORD_ERRORS, 0.0, truth, truth, given)


def test_intervals() -> None:
    # Wilson's of 80 of 100, as in Newcombe 1998's method 3.
    low, high = share_interval(0.8, 100)
    assert (low, high) == (pytest.approx(0.7112, abs=1e-4), pytest.approx(0.8667, abs=1e-4))
    assert share_interval(1.0, 3)[1] == 1.0 and share_interval(0.0, 3)[0] == 0.0
    # Two clips of four words with one error and none: 1/8, spread 2 * (2 * (1/2)^2), over 8 words.
    found = word_error_interval(transcripts(("a b c d", "a b c d"), ("a b c x", "a b c d")))
    assert found is not None and found[1] == pytest.approx(0.125 + 1.96 / 8)
    assert word_error_interval(transcripts(("a",), ("b",))) is None
