"""Whatever takes a path takes a text, a `Path` and any other os.PathLike: each public entry, with a path that is none
of a bundle or file, ends as it does for a `Path`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeformer.bench.command import Request
from edgeformer.checkpoints.checkpoint import open_checkpoint
from edgeformer.checkpoints.sources import resolve_source
from edgeformer.compress.budget.budget import parse_budget
from edgeformer.compress.budget.chain import ChainOptions, Conversion
from edgeformer.compress.budget.sensitivity import sensitivity_of
from edgeformer.compress.compress import CompressOptions
from edgeformer.compress.recipe import load_recipe
from edgeformer.convert.layer_plan import LayerPlan
from edgeformer.convert.options import ConvertOptions
from edgeformer.data.annotated import read_speech_data
from edgeformer.data.labelled import data_labels
from edgeformer.doctor.diagnosis import diagnose
from edgeformer.doctor.examiner import DoctorOptions
from edgeformer.evaluate.embeddings import read_scored_pairs
from edgeformer.report.collect import FolderReport, collect
from edgeformer.report.html_page import page_of
from edgeformer.report.page import write_page
from edgeformer.signing import sign_bundle
from edgeformer_runtime import load
from edgeformer_runtime.bench.contender import Sweep, bundle_cells
from edgeformer_runtime.bundle.bundle import Bundle, pack
from edgeformer_runtime.bundle.signature import NO_REQUIREMENT
from edgeformer_runtime.errors import EdgeFormerError
from edgeformer_runtime.preprocess.audio import open_audio
from edgeformer_runtime.preprocess.image import to_rgb


class Place(os.PathLike[str]):
    """What is neither a text nor a `Path`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return self._path


KINDS: tuple[Callable[[str], Any], ...] = (str, Path, Place)

ENTRIES: dict[str, Callable[[Any], object]] = {
    "load": load,
    "Bundle.open": Bundle.open,
    "pack": lambda path: pack(path, path),
    "to_rgb": to_rgb,
    "open_audio": lambda path: open_audio(path, 16000),
    "open_checkpoint": open_checkpoint,
    "resolve_source": resolve_source,
    "diagnose": lambda path: diagnose(path, DoctorOptions()),
    "data_labels": lambda path: data_labels(path, "text"),
    "read_scored_pairs": read_scored_pairs,
    "read_speech_data": read_speech_data,
    "load_recipe": load_recipe,
    "LayerPlan.read": LayerPlan.read,
    "collect": collect,
    "sensitivity_of": lambda path: sensitivity_of(path, path, "onnx", ("int8",), 1),
    "bundle_cells": lambda path: bundle_cells([path], Sweep(), NO_REQUIREMENT),
    "page_of": page_of,
    "sign_bundle": lambda path: sign_bundle(path, path),
    "Request": lambda path: Request((path,), Sweep(), 1),
}


def outcome(call: Callable[[Any], object], argument: object) -> object:
    try:
        return call(argument)
    except EdgeFormerError as error:
        return type(error), str(error)


@pytest.mark.parametrize("name", ENTRIES)
def test_each_kind_of_path_ends_alike(name: str, tmp_path: Path) -> None:
    missing = str(tmp_path / "nothing.json")
    found = [outcome(ENTRIES[name], kind(missing)) for kind in KINDS]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("kind", KINDS)
def test_options_hold_paths(kind: Callable[[str], Any]) -> None:
    options = ConvertOptions(kind("a"), kind("b"), calibration=kind("c"), labels_file=kind("d"))
    assert (options.source, options.out, options.calibration) == ("a", Path("b"), Path("c"))
    assert (options.labels_file, options.plan) == (Path("d"), None)
    compress = CompressOptions(kind("a"), kind("r"), kind("d"), kind("o"), teacher=kind("t"))
    assert (compress.source, compress.data, compress.out, compress.teacher) == ("a", "d", Path("o"), "t")
    chain = ChainOptions(kind("a"), parse_budget("size<=1MB"), kind("d"), kind("o"), Conversion("onnx", "d"))
    assert (chain.source, chain.data, chain.out) == ("a", "d", Path("o"))


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_written_at_each_kind_of_path(kind: Callable[[str], Any], tmp_path: Path) -> None:
    write_page(FolderReport("dist", (), {}, {}, {}), kind(str(tmp_path / "page.html")))
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    LayerPlan({"a": "int8"}).write(kind(str(tmp_path / "plan.json")))
    assert LayerPlan.read(kind(str(tmp_path / "plan.json"))) == LayerPlan({"a": "int8"})
