"""Reports of folders: what is collected, which variants are best, and the page."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeformer.cli import app
from edgeformer.compress.budget.search import Change
from edgeformer.compress.budget.sensitivity import LayerCost, Reading, Sensitivity
from edgeformer.convert.convert import ConvertOptions, convert
from edgeformer.report.collect import FolderReport, Variant, collect
from edgeformer.report.page import page, pareto, pareto_plot, write_page
from edgeformer_runtime.errors import InputError
from tests.edgeformer.compress import tiny

pytestmark = pytest.mark.slow
HOSTILE = '<script>alert("1")</script>&'


class Reader(HTMLParser):
    """Every tag with its attributes, the headings' texts, and that tags are closed in their order."""

    VOID = frozenset({"meta", "path", "use", "wbr"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.headings: list[str] = []
        self.cells: list[list[str]] = []
        self.is_broken = False
        """Whether the text goes on behind a place where it may be broken."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.is_broken = tag == "wbr"
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h1", "h2"):
            self._add(self.headings, data)
        if self.open and self.open[-1] == "td":
            self._add(self.cells[-1], data)

    def _add(self, texts: list[str], data: str) -> None:
        if self.is_broken:
            texts[-1] += data
        else:
            texts.append(data)
        self.is_broken = False


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def variants() -> tuple[Variant, ...]:
    """The second is worse than the first in all; the last are incomparable."""
    exact = Variant("a.fp32", "bundle", "litert", "fp32", 8_000_000, "accuracy", 0.95, 1.0, 4.0, changes=())
    return (
        exact,
        replace(exact, name="a.slow", latency_ms=5.0, value=0.94),
        replace(exact, name="a.int8", size_bytes=2_000_000, value=0.93, agreement=0.97, latency_ms=2.0),
        Variant(
            "b",
            "search",
            "litert",
            "int8",
            1_900_000,
            "accuracy",
            0.90,
            0.9,
            1.9,
            "note",
            (Change("1", "cat", "cat", "dog"), Change("2", "cat", "cat", "dog"), Change("3", "dog", "cat", "dog")),
        ),
        Variant("c", "bundle", "coreml", "fp32", 8_000_000),
    )


def report() -> FolderReport:
    reading = Reading(0.9, 0.95, 0.01)
    found = Sensitivity(
        "litert",
        "accuracy",
        10,
        Reading(0.95, 1.0, 0.0),
        (LayerCost("layer.0", "int8", 100, 400, reading), LayerCost("layer.1", "int4", 50, 400, reading)),
    )
    return FolderReport(
        "folder", variants(), {"b": found}, {"b": {"version": 1, "recipe": {"name": "x"}}}, {"torch": "2"}
    )


def test_only_what_nothing_beats_is_best() -> None:
    assert [each.name for each in pareto(variants())] == ["a.fp32", "a.int8", "b"]
    errors = [replace(each, metric="wer") for each in variants()[:2]]
    assert [each.name for each in pareto(errors)] == ["a.fp32", "a.slow"]  # the slow one has fewer word errors
    assert pareto([variants()[0], variants()[0]]) == (variants()[0], variants()[0])
    refused = replace(variants()[2], refused=True)  # by its gates: no app can take it
    assert pareto([variants()[0], refused]) == (variants()[0],)


def test_the_page_is_whole_and_needs_nothing_else() -> None:
    text = page(report())
    reader = read(text)
    assert reader.headings == [
        "Compression report: folder",
        "Variants",
        "Sensitivity of b",
        "What changed in b",
        "Recipe of b",
        "Environment of this report",
    ]
    assert not any(tag in ("script", "link", "img", "iframe") for tag, _ in reader.tags)
    for _, attributes in reader.tags:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert "@import" not in text and "url(http" not in text
    pictures = [attributes for tag, attributes in reader.tags if tag == "svg"]
    assert len(pictures) == 2 and all(each["role"] == "img" and each["aria-label"] for each in pictures)
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert "color-scheme: light dark" in text and "@media print" in text and "currentColor" in text
    assert text == page(report())


def test_each_metric_has_a_picture_of_its_own() -> None:
    speech = [replace(each, name=f"w.{each.name}", metric="wer") for each in variants()[:3]]
    text = page(replace(report(), variants=(*variants(), *speech), sensitivities={}))
    assert text.count("<svg") == 2 and "word errors, %" in text
    ids = [attributes["id"] for _, attributes in read(text).tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_no_point_lies_on_the_frame() -> None:
    """Bundles of nearly one size are the usual case: the largest one's point, and its mark, are cut off there."""
    alike = [replace(variants()[0], name=str(size), size_bytes=size) for size in (2_690_000, 2_720_000, 2_790_000)]
    svg = pareto_plot(alike) or ""
    points = re.findall(r'<use [^>]*x="([\d.]+)" y="[\d.]+" style="fill: #0072b2', svg)
    left, width = re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', svg)[0]
    assert len(points) >= 6 and max(map(float, points)) + 30 < float(left) + float(width)


def test_changes_are_counted_by_pairs() -> None:
    text = page(report())
    assert "3 answers: 2 right before, wrong now, 1 wrong before, right now." in text
    assert ["cat", "cat", "dog", "2"] in read(text).cells


def test_names_from_files_are_no_markup(tmp_path: Path) -> None:
    hostile = tuple(replace(each, name=HOSTILE + each.name, note=HOSTILE) for each in variants())
    text = page(replace(report(), folder=HOSTILE, variants=hostile, recipes={HOSTILE: {"a": HOSTILE}}))
    read(text)
    assert "<script" not in text
    no_utf8 = replace(report(), folder=os.fsdecode(b"dist\xff"))
    write_page(no_utf8, tmp_path / "report.html")
    assert "dist\\udcff" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_without_quality_there_is_no_plot() -> None:
    assert pareto_plot(variants()[4:]) is None
    assert "give --data" in page(replace(report(), variants=variants()[4:]))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no bundle"):
        collect(tmp_path)
    with pytest.raises(InputError, match="found no folder"):
        collect(tmp_path / "absent")


@pytest.mark.litert
def test_a_folder_of_bundles_and_a_checkpoint(tmp_path: Path) -> None:
    texts = tiny.save_texts(tmp_path / "texts.json")
    source = tiny.save_classifier(tmp_path / "untrained")
    folder = tmp_path / "dist"
    folder.mkdir()
    tiny.run(source, tiny.FINETUNE, texts, folder / "trained", evaluate=str(texts))
    (folder / "recipe.toml").unlink()
    wanted = ("fp32", "dynamic-int8")
    rows = convert(ConvertOptions(str(folder / "trained"), folder, precisions=wanted, seq_lens=(16,), name="small"))
    assert all(row.ok for row in rows)
    ended = CliRunner().invoke(app, ["report", str(folder), "--data", str(texts), "--json"])
    document = json.loads(ended.stdout)
    named = {each["name"]: each for each in document["variants"]}
    assert list(named) == ["small.litert.dynamic-int8", "small.litert.fp32", "trained: step 1, finetune"]
    fp32, int8 = named["small.litert.fp32"], named["small.litert.dynamic-int8"]
    assert fp32["value"] == 1.0 and fp32["agreement"] == 1.0 and fp32["changes"] == []
    assert int8["size_bytes"] < fp32["size_bytes"] and int8["latency_ms"] > 0
    assert named["trained: step 1, finetune"]["value"] == 1.0
    ended = CliRunner().invoke(app, ["report", str(folder)])
    assert ended.exit_code == 0, ended.output
    assert read((folder / "report.html").read_text()).headings[0] == "Compression report: dist"
    shutil.rmtree(folder)
