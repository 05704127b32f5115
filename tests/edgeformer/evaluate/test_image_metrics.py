"""Average precision as COCO counts it, intersection over union, and the files that both are read from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeformer.evaluate.evaluate import Asker
from edgeformer.evaluate.vision import (
    TrueObjects,
    average_precisions,
    evaluate_detection,
    evaluate_segmentation,
    overlaps,
    read_coco,
    shared_objects,
)
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import ProgramSpec
from edgeformer_runtime.bundle.signature import SignatureState
from edgeformer_runtime.bundle.specs import TensorSpec
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines.vision import DetectedObject
from edgeformer_runtime.tasks.vision import ObjectDetection, SemanticSegmentation
from tests.golden import tiny_manifests as tiny

FOUND = np.array([[0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 10, 6]], np.float64)
SCORES = np.array([0.9, 0.8, 0.7])
TRUE = TrueObjects(np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float64), np.zeros(2, np.bool_))


def test_overlaps_are_shares_of_the_union_and_of_a_box_in_a_crowd() -> None:
    crowds = np.array([False, True])
    assert overlaps(FOUND[2:], np.array([[0.0, 0, 10, 10]] * 2), crowds).tolist() == [[0.6, 1.0]]


def test_average_precision_is_that_of_the_coco_benchmark() -> None:
    # One of two objects is found first: precision 1 up to recall 0.5, which 51 of the 101 recalls reach.
    assert average_precisions([(FOUND, SCORES)], [TRUE]) == pytest.approx([51 / 101] * 10)
    # Found second: precision 1/2 there, but for the loose box, which counts up to an overlap of 0.6.
    second = average_precisions([(FOUND[[1, 2]], SCORES[:2])], [TRUE])
    assert second == pytest.approx([51 / 101 / 2] * 3 + [0.0] * 7)
    # What lies in a crowd counts neither way.
    crowd = TrueObjects(np.vstack([TRUE.boxes[:1], FOUND[1:2]]), np.array([False, True]))
    assert average_precisions([(FOUND[[1, 0]], SCORES[:2])], [crowd]) == pytest.approx([1.0] * 10)
    assert average_precisions([(FOUND, SCORES)], [TrueObjects(FOUND[:0], np.zeros(0, np.bool_))]) is None


def test_objects_are_shared_by_label_and_place() -> None:
    one = [DetectedObject("cat", 0.9, (0, 0, 10, 10)), DetectedObject("dog", 0.9, (0, 0, 10, 10))]
    other = [DetectedObject("cat", 0.6, (0, 0, 10, 8)), DetectedObject("dog", 0.6, (40, 0, 50, 8))]
    assert (shared_objects(one, other), shared_objects(one, one)) == (1, 2)


class Fixed:
    """An engine whose outputs are always the same."""

    name = executed_by = "numpy"
    not_covered = None

    def __init__(self, outputs: dict[str, Any]) -> None:
        self.outputs = outputs

    def run(self, _: str, __: dict[str, np.ndarray]) -> dict[str, Any]:
        return self.outputs

    def close(self) -> None:
        pass


def asker(folder: Path, task: str, head: Any, outputs: dict[str, Any]) -> Asker:
    side = tiny.IMAGE_SPEC.height
    spec = replace(tiny.IMAGE_SPEC, crop="squash", width=side, resize_short_side=side)
    base = tiny.image()
    specs = tuple(TensorSpec(name, "float32", each.shape) for name, each in outputs.items())
    program = ProgramSpec("image", base.programs[0].file, "main", base.programs[0].inputs, specs)
    manifest = replace(base, task=task, programs=(program,), preprocessing=spec, postprocessing=head)
    return Asker(Bundle(folder, manifest, SignatureState(False, None)), engine=Fixed(outputs), alone=True)


def coco(folder: Path, **changes: Any) -> str:
    document = {
        "images": [{"id": 7, "file_name": "a.png"}],
        "categories": [{"id": 3, "name": "dog"}],
        "annotations": [{"image_id": 7, "category_id": 3, "bbox": [0, 0, 20, 10], "iscrowd": 0}],
    }
    (folder / "data.json").write_text(json.dumps(document | changes))
    return str(folder / "data.json")


def test_objects_are_evaluated_on_a_coco_file(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (40, 20)).save(tmp_path / "images" / "a.png")
    outputs = {
        "logits": np.array([[[0.0, 3.0, 0.0]]], np.float32),
        "boxes": np.array([[[0.25, 0.25, 0.5, 0.5]]], np.float32),
    }
    found = evaluate_detection(
        asker(tmp_path, "object-detection", ObjectDetection(("cat", "dog"), "softmax"), outputs), coco(tmp_path), None
    )
    assert found.to_json() | {"metric": "map", "value": 1.0, "map50": 1.0, "objects": 1, "n": 1} == found.to_json()
    assert [table.row_count for table in found.tables()] == [1]


def test_data_of_another_kind_is_refused(tmp_path: Path) -> None:
    labels = ("cat", "dog")
    with pytest.raises(InputError, match="COCO has it, with images beside it, found"):
        read_coco(str(tmp_path), labels)
    with pytest.raises(InputError, match=r"data\.json: expected images, annotations and categories"):
        read_coco(coco(tmp_path, annotations=[{}]), labels)
    with pytest.raises(InputError, match="does not know the category 'bird'"):
        read_coco(coco(tmp_path, categories=[{"id": 3, "name": "bird"}]), labels)
    (image,) = read_coco(coco(tmp_path), labels)
    with pytest.raises(InputError, match="neither beside it nor in a folder images"):
        image.read()
    (image,) = read_coco(coco(tmp_path, images=[{"id": 7, "file_name": "../a.png"}]), labels)
    with pytest.raises(InputError, match="below the folder of the data"):
        image.read()
    head = SemanticSegmentation(labels)
    outputs = {"logits": np.zeros((1, 2, 4, 4), np.float32)}
    with pytest.raises(InputError, match="expected a folder with images and masks"):
        evaluate_segmentation(asker(tmp_path, "image-segmentation", head, outputs), str(tmp_path), None)


def test_segments_are_evaluated_on_maps(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (4, 2)).save(tmp_path / "images" / "a.png")
    truth = np.array([[0, 0, 1, 1], [0, 0, 1, 255]], np.uint8)
    Image.fromarray(truth).save(tmp_path / "masks" / "a.png")
    logits = np.zeros((1, 2, 1, 4), np.float32)
    logits[0, 1, 0, 1:] = 1  # the right three columns are label 1
    asked = asker(tmp_path, "image-segmentation", SemanticSegmentation(("a", "b")), {"logits": logits})
    found = evaluate_segmentation(asked, str(tmp_path), None)
    # Label 0: 2 of 4; label 1: 3 of 5. The pixel that nobody knows counts nowhere.
    assert found.to_json() | {"value": pytest.approx((2 / 4 + 3 / 5) / 2), "accuracy": 5 / 7} == found.to_json()
    Image.fromarray(truth + 2).save(tmp_path / "masks" / "a.png")
    with pytest.raises(InputError, match="is no label's number"):
        evaluate_segmentation(asked, str(tmp_path), None)
