"""Bundles whose answers are places in an image: objects and segments, verified, refused and answered."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_bundle import seal
from tiny_image_bundle import LABELS, TinyPlacesEngine, make_places

from edgeformer_runtime import load
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import parse
from edgeformer_runtime.errors import BundleError, EngineError, InputError
from edgeformer_runtime.verify.verify import verify

TASKS = ("object-detection", "image-segmentation")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {task: make_places(tmp_path_factory.mktemp("places") / task, task) for task in TASKS}


def flat(width: int, height: int, colour: tuple[int, int, int] = (255, 0, 0)) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def test_boxes_are_in_pixels_of_the_photo_and_padding_is_told(made: dict[str, Path]) -> None:
    pipeline = load(made["object-detection"], engine=TinyPlacesEngine())
    # 90 x 45 becomes 24 x 12: all columns of the input are filled, and half of its rows.
    (found, *others) = pipeline(flat(90, 45), threshold=0).objects
    assert (found.label, found.box) == ("red", (0.0, 11.25, 90.0, 33.75))
    assert [each.box for each in others] == [(0.0, 0.0, 45.0, 45.0)]
    assert pipeline(flat(90, 45), threshold=1).objects == ()
    assert len(pipeline(flat(90, 45)).objects) == 1 and len(pipeline(flat(90, 45), threshold=0).top(1).objects) == 1
    with pytest.raises(InputError, match="a score from 0 to 1, found 2"):
        pipeline(flat(9, 9), threshold=2)
    with pytest.raises(InputError, match="too narrow for this model"):
        pipeline(flat(1, 900))


def test_a_photo_has_the_labels_of_its_colours(made: dict[str, Path]) -> None:
    pipeline = load(made["image-segmentation"], engine=TinyPlacesEngine())
    photo = flat(60, 40)
    photo.paste((0, 0, 255), (30, 0, 60, 40))
    red, blue = pipeline(photo).segments
    assert (red.label, blue.label) == ("red", "blue")
    assert red.mask.shape == (40, 60) and red.mask[:, :20].all() and blue.mask[:, 40:].all()
    assert red.share + blue.share == pytest.approx(1)
    header, body = pipeline(photo).to_frame()
    assert type(pipeline(photo)).from_frame(header, body, pipeline.bundle.manifest.postprocessing).segments[0].label


@pytest.mark.parametrize("task", TASKS)
def test_bundles_of_places_are_verified(task: str, made: dict[str, Path]) -> None:
    class Worse(TinyPlacesEngine):
        def run(self, program: str, inputs: Any) -> Any:
            return {name: output + 0.3 * output**2 for name, output in super().run(program, inputs).items()}

    class Broken(TinyPlacesEngine):
        def run(self, program: str, inputs: Any) -> Any:
            return {name: np.full_like(output, np.nan) for name, output in super().run(program, inputs).items()}

    with Bundle.open(made[task]) as bundle:
        assert verify(bundle, TinyPlacesEngine()).ok
        assert [stage.ok for stage in verify(bundle, Worse()).stages] == [True, False, False]
        assert not verify(bundle, Broken()).ok
    with pytest.raises(EngineError, match="NaN or infinity"):
        load(made[task], engine=Broken())(flat(20, 20))


def _label(cases: Any, to: str) -> None:
    for case in cases["cases"]:
        for each in next(iter(case["expected"].values())):
            each["label"] = to


@pytest.mark.parametrize(
    ("task", "change", "reason"),
    [
        ("object-detection", lambda cases: _label(cases, "green"), "objects of other labels"),
        ("image-segmentation", lambda cases: _label(cases, "green"), "other shares of the image"),
    ],
)
def test_a_recorded_answer_that_the_outputs_do_not_give(
    task: str, change: Callable[[Any], None], reason: str, tmp_path: Path
) -> None:
    folder = make_places(tmp_path / "bundle", task)
    cases = json.loads((folder / "vectors" / "cases.json").read_text())
    change(cases)
    (folder / "vectors" / "cases.json").write_text(json.dumps(cases, indent=2, sort_keys=True) + "\n")
    seal(folder, parse((folder / "manifest.json").read_text()))
    with Bundle.open(folder) as bundle:
        stage = verify(bundle, TinyPlacesEngine()).stages[-1]
    assert not stage.ok and reason in str(stage.reason)


def _set(**values: Any) -> Callable[[Any], None]:
    return lambda record: record.update(values)


@pytest.mark.parametrize(
    ("task", "part", "change", "reason"),
    [
        ("object-detection", "preprocessing", _set(resize_long_side=None), "resize_long_side"),
        ("object-detection", "preprocessing", _set(resize_long_side=99), "at most height and width"),
        ("object-detection", "preprocessing", _set(multiple_of=1), "multiple_of"),
        ("object-detection", "preprocessing", _set(crop="center"), "belong to the crop 'pad'"),
        ("object-detection", "postprocessing", _set(labels=["a"]), "expected the float32 outputs logits of shape"),
        ("object-detection", "postprocessing", _set(most=3), "most: expected a number for sigmoid"),
        ("object-detection", "postprocessing", _set(threshold=2), "threshold"),
        ("image-segmentation", "preprocessing", _set(resize_short_side=20), "a square of it all"),
        ("image-segmentation", "postprocessing", _set(labels=["a", "b"]), "one float32 output of shape"),
        ("image-segmentation", "postprocessing", _set(labels=["a", "b", "a"]), "occurs twice"),
    ],
)
def test_manifests_that_contradict_themselves(
    task: str, part: str, change: Callable[[Any], None], reason: str, made: dict[str, Path]
) -> None:
    data = json.loads((made[task] / "manifest.json").read_text())
    change(data[part])
    with pytest.raises(BundleError, match=reason):
        parse(json.dumps(data))


def test_labels_of_objects_may_have_one_name_and_sigmoids_are_ranked(made: dict[str, Path]) -> None:
    data = json.loads((made["object-detection"] / "manifest.json").read_text())
    data["postprocessing"] |= {"labels": ["a", "b", "a", "b"], "activation": "sigmoid", "most": 3}
    manifest = parse(json.dumps(data))
    assert parse(manifest.to_json()) == manifest
    assert set(LABELS).isdisjoint(getattr(manifest.postprocessing, "labels", ()))
