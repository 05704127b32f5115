"""`eval` of places in images: mean average precision of objects, as COCO counts it, and of pixels the mean IoU."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.table import Table

from edgeformer.data.labelled import locate, spread
from edgeformer.evaluate.evaluate import Asker, Comparison, ask
from edgeformer.models.config import MAX_TABLE_BYTES, read_json
from edgeformer.tasks.image import SUFFIXES
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines.vision import DetectedObject, DetectionResult
from edgeformer_runtime.registry import did_you_mean
from edgeformer_runtime.tasks.vision import BOX, DetectionOptions, ObjectDetection, SemanticSegmentation

Boxes = NDArray[np.float64]

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MOST_OBJECTS = 100
"""Of an image, the best ones; all three as the COCO benchmark has them (Lin et al. 2014)."""
SAME_PLACE = 0.5
"""The least intersection over union of two boxes that are taken for those of one object."""
EVERYTHING = DetectionOptions(threshold=0.0)
"""Average precision ranks objects by their scores, whatever these are."""


# What is there, and what was found.


@dataclass(frozen=True)
class TrueObjects:
    """The objects of one image that people marked: boxes (N, 4) in pixels, and which of them are crowds (N,)."""

    boxes: Boxes
    crowds: NDArray[np.bool_]


@dataclass(frozen=True)
class MarkedImage:
    """An image of a COCO file.

    Attributes:
        name: of its file.
        read: gives its path.
        objects: by label.
    """

    name: str
    read: Callable[[], Path]
    objects: Mapping[str, TrueObjects]


def read_coco(data: str, labels: Sequence[str]) -> tuple[MarkedImage, ...]:
    """The images of a COCO file of instances, which lie beside it, or in a folder `images` beside it.

    Args:
        data: a .json with `images` (id, file_name), `annotations` (image_id, category_id, bbox as left, top, width and
            height, iscrowd) and `categories` (id, name).
        labels: the bundle's; categories are compared with them by name.

    Raises:
        InputError: it is none, has other categories, or an image is not there.
    """
    path, key = locate(data)
    if path.is_dir() or path.suffix.lower() != ".json" or key is not None:
        raise InputError(f"objects come in a .json as COCO has it, with images beside it, found {shorten(data)[1:-1]}")
    document = read_json(path, MAX_TABLE_BYTES)
    try:
        names = {each["id"]: str(each["name"]) for each in document["categories"]}
        files = {each["id"]: str(each["file_name"]) for each in document["images"]}
        found: dict[Any, dict[str, list[tuple[list[float], bool]]]] = {number: {} for number in files}
        for each in document["annotations"]:
            left, top, width, height = map(float, each["bbox"])
            box = [left, top, left + width, top + height]
            marked = found[each["image_id"]].setdefault(names[each["category_id"]], [])
            marked.append((box, bool(each.get("iscrowd"))))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path.name}: expected images, annotations and categories as COCO has them: {type(error).__name__} {error}"
        ) from None
    used = {name for objects in found.values() for name in objects}
    unknown = next((name for name in sorted(used) if name not in labels), None)
    if unknown is not None:
        raise InputError(
            f"{path.name}: the bundle does not know the category {shorten(unknown)}: {did_you_mean(unknown, labels)}"
            f"expected names of its own labels, as {shorten(labels[0])}"
        )
    if not files:
        raise InputError(f"{path.name} holds no images")
    return tuple(
        MarkedImage(
            file,
            partial(_image_beside, path, file),
            {
                name: TrueObjects(np.array([box for box, _ in marked]), np.array([crowd for _, crowd in marked]))
                for name, marked in found[number].items()
            },
        )
        for number, file in files.items()
    )


def _image_beside(path: Path, name: str) -> Path:
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts:
        raise InputError(f"{path.name}: {shorten(name)}: expected the name of a file below the folder of the data")
    places = (path.parent / name, path.parent / "images" / name)
    for each in places:
        if each.is_file():
            return each
    raise InputError(f"{path.name}: {shorten(name)} is neither beside it nor in a folder images beside it")


# How COCO counts.


def overlaps(boxes: Boxes, others: Boxes, crowds: NDArray[np.bool_] | None = None) -> Boxes:
    """The intersection over union of boxes (N, 4) with others (M, 4): (N, M); with a crowd, over the box alone."""
    corners = np.maximum(boxes[:, None, :2], others[None, :, :2]), np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = (corners[1] - corners[0]).clip(min=0).prod(axis=2)
    areas = [(each[:, 2:] - each[:, :2]).clip(min=0).prod(axis=1) for each in (boxes, others)]
    union = areas[0][:, None] + areas[1][None] - shared
    if crowds is not None:
        union = np.where(crowds[None], areas[0][:, None], union)
    return cast(Boxes, shared / np.maximum(union, 1e-12))


def _matches(boxes: Boxes, truth: TrueObjects, least: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """For each box, best score first, whether it is an object's that no better one has, and whether it does not count.

    A crowd may be matched any number of times, and what matches one counts neither for nor against.
    """
    hits, ignored = np.zeros(len(boxes), np.bool_), np.zeros(len(boxes), np.bool_)
    shares = overlaps(boxes, truth.boxes, truth.crowds)
    free = ~truth.crowds
    for number, row in enumerate(shares):
        single = np.where(free, row, -1.0)
        if single.size and single.max() >= least:
            hits[number] = True
            free[np.flatnonzero(single == single.max())[-1]] = False
        else:
            ignored[number] = bool((row[truth.crowds] >= least).any())
    return hits, ignored


def average_precisions(
    found: Sequence[tuple[Boxes, NDArray[np.float64]]], truth: Sequence[TrueObjects]
) -> NDArray[np.float64] | None:
    """Of one label: the mean precision over `RECALLS` at each of `IOU_THRESHOLDS`; None: no image has the label.

    Args:
        found: of each image boxes (N, 4) and their scores (N,), best first.
        truth: of each image.
    """
    count = sum(int((~each.crowds).sum()) for each in truth)
    if count == 0:
        return None
    order = np.argsort(-np.concatenate([scores for _, scores in found]), kind="stable")
    precisions = []
    for least in IOU_THRESHOLDS:
        pairs = [_matches(boxes, each, float(least)) for (boxes, _), each in zip(found, truth, strict=True)]
        hits, ignored = (np.concatenate(side)[order] for side in zip(*pairs, strict=True))
        right, wrong = np.cumsum(hits), np.cumsum(~hits & ~ignored)
        recall = right / count
        precision = right / np.maximum(right + wrong, 1e-12)
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        reached = np.searchsorted(recall, RECALLS, side="left")
        precisions.append(np.append(precision, 0.0)[reached].mean())
    return np.array(precisions)


@dataclass(frozen=True)
class DetectionQuality:
    """Mean average precision over the labels: over all of `IOU_THRESHOLDS`, and at the first of them, 0.5."""

    map: float
    map50: float


_NONE = TrueObjects(np.zeros((0, BOX)), np.zeros(0, np.bool_))


def detection_quality(
    answers: Sequence[Sequence[DetectedObject]], images: Sequence[MarkedImage], labels: Sequence[str]
) -> DetectionQuality:
    """Of the objects that were found in each image, best first."""
    found = []
    for label in dict.fromkeys(labels):
        own = [[each for each in answer if each.label == label][:MOST_OBJECTS] for answer in answers]
        boxes = [
            (np.array([each.box for each in some]).reshape(-1, BOX), np.array([each.score for each in some]))
            for some in own
        ]
        precisions = average_precisions(boxes, [image.objects.get(label, _NONE) for image in images])
        if precisions is not None:
            found.append(precisions)
    if not found:
        raise InputError("no image has an object of the bundle's labels: there is no precision to tell")
    return DetectionQuality(float(np.mean(found)), float(np.mean([each[0] for each in found])))


def shared_objects(one: Sequence[DetectedObject], other: Sequence[DetectedObject]) -> int:
    """How many objects both have, of one label and at the same place."""
    count = 0
    for label in {each.label for each in one}:
        sides = [np.array([each.box for each in side if each.label == label]).reshape(-1, BOX) for side in (one, other)]
        count += int(_matches(sides[0], TrueObjects(sides[1], np.zeros(len(sides[1]), np.bool_)), SAME_PLACE)[0].sum())
    return count


@dataclass(frozen=True, repr=False)
class DetectionEvaluation(Comparison[DetectionQuality]):
    """What was found in so many images.

    Attributes:
        agreement: of the objects above the bundle's threshold, the share that both have; None without a source.
        objects: how many are marked, crowds left out.
    """

    agreement: float | None
    objects: int

    def to_json(self) -> dict[str, Any]:
        """The document that `eval --json` prints."""
        return {
            **self.values("map", lambda quality: quality.map),
            "agreement": self.agreement,
            "map50": self.bundle.map50,
            "source_map50": None if self.source is None else self.source.map50,
            "objects": self.objects,
            "executed_by": self.executed_by,
        }

    def tables(self) -> list[Table]:
        """A row for the bundle and one for its source."""
        same = "-" if self.agreement is None else f"{self.agreement:.1%}"
        columns = ("mAP", "mAP at 0.5", "same objects as the source", "images")
        return [self.table(columns, lambda quality: (f"{quality.map:.1%}", f"{quality.map50:.1%}"), same)]


def evaluate_detection(asker: Asker, data: str, limit: int | None) -> DetectionEvaluation:
    """Compare objects with those that people marked; see `read_coco`."""
    head = cast(ObjectDetection, asker.bundle.manifest.postprocessing)
    opened = read_coco(data, head.labels)
    images = opened if limit is None else spread(opened, limit)

    def taken(result: DetectionResult) -> tuple[DetectedObject, ...]:
        return result.objects

    asked = ask(asker, images, taken, EVERYTHING)
    agreement = None
    if asked.theirs is not None:
        sure = [
            [[each for each in answer if each.score > head.threshold] for answer in side]
            for side in (asked.own, asked.theirs)
        ]
        shared = sum(shared_objects(one, other) for one, other in zip(*sure, strict=True))
        total = sum(len(answer) for side in sure for answer in side)
        agreement = 2 * shared / total if total else 1.0
    return DetectionEvaluation(
        executed_by=asked.executed_by,
        n=len(images),
        objects=sum(int((~each.crowds).sum()) for image in images for each in image.objects.values()),
        bundle=detection_quality(asked.own, images, head.labels),
        source=None if asked.theirs is None else detection_quality(asked.theirs, images, head.labels),
        agreement=agreement,
        notes=asked.notes,
    )


# Pixels.


IGNORED = 255
"""In a map of labels: nobody knows what is there."""


@dataclass(frozen=True)
class LabelledPixels:
    """An image and the map of its labels: the name, and what reads the paths of both."""

    name: str
    read: Callable[[], Path]
    map: Path


def read_label_maps(data: str) -> tuple[LabelledPixels, ...]:
    """A folder with `images`, and in `masks` for each a PNG of the same name, of its size in one channel.

    A pixel is the number of its label among the bundle's; 255: nobody knows.

    Raises:
        InputError: there are none, or an image has no map.
    """
    folder = Path(data)
    if not (folder / "images").is_dir() or not (folder / "masks").is_dir():
        raise InputError(f"{shorten(data)[1:-1]}: expected a folder with images and masks, folders of the same names")
    found = []
    for path in sorted((folder / "images").iterdir()):
        if path.suffix.lower() in SUFFIXES:
            mask = folder / "masks" / f"{path.stem}.png"
            if not mask.is_file():
                raise InputError(f"{path.name}: expected its map of labels in {mask}")
            found.append(LabelledPixels(path.name, partial(Path, path), mask))
    if not found:
        raise InputError(f"{folder / 'images'} holds no images")
    return tuple(found)


def read_map(labelled: LabelledPixels, size: tuple[int, int], labels: int) -> NDArray[np.int64]:
    """The map of an image of (rows, columns): (H, W) of numbers below `labels`, or `IGNORED`."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            with Image.open(labelled.map, formats=("PNG",)) as image:
                is_map = image.mode in ("L", "P", "I;16", "I") and image.size == size[::-1]
                numbers = np.asarray(image, np.int64) if is_map else np.zeros((0, 0), np.int64)
        except (OSError, SyntaxError, ValueError, Warning, Image.DecompressionBombError) as error:
            raise InputError(f"{labelled.map.name}: cannot be read as a PNG: {error}") from None
    if numbers.shape != size:
        raise InputError(f"{labelled.map.name}: expected one channel of {size[1]} x {size[0]} pixels, as its image")
    if ((numbers >= labels) & (numbers != IGNORED)).any():
        raise InputError(f"{labelled.map.name}: {numbers.max()} is no label's number: the bundle has {labels}")
    return numbers


@dataclass(frozen=True)
class SegmentationQuality:
    """The mean over the labels that occur of intersection over union, and the share of right pixels."""

    miou: float
    accuracy: float


def segmentation_quality(counts: NDArray[np.int64]) -> SegmentationQuality:
    """Of counts (L, L) of pixels, by their right label and the one that was found."""
    right, union = counts.diagonal(), counts.sum(axis=0) + counts.sum(axis=1) - counts.diagonal()
    there = counts.sum(axis=1) > 0
    if not there.any():
        raise InputError("no pixel has a label: there is nothing to tell")
    return SegmentationQuality(float((right[there] / union[there]).mean()), float(right.sum() / counts.sum()))


@dataclass(frozen=True, repr=False)
class SegmentationEvaluation(Comparison[SegmentationQuality]):
    """What was found in so many images.

    Attributes:
        agreement: the share of pixels to which both give the same label, None without a source.
    """

    agreement: float | None

    def to_json(self) -> dict[str, Any]:
        """The document that `eval --json` prints."""
        return {
            **self.values("miou", lambda quality: quality.miou),
            "agreement": self.agreement,
            "accuracy": self.bundle.accuracy,
            "source_accuracy": None if self.source is None else self.source.accuracy,
            "executed_by": self.executed_by,
        }

    def tables(self) -> list[Table]:
        """A row for the bundle and one for its source."""
        same = "-" if self.agreement is None else f"{self.agreement:.2%}"
        columns = ("mean IoU", "right pixels", "same pixels as the source", "images")
        return [self.table(columns, lambda quality: (f"{quality.miou:.1%}", f"{quality.accuracy:.1%}"), same)]


def evaluate_segmentation(asker: Asker, data: str, limit: int | None) -> SegmentationEvaluation:
    """Compare each pixel's label with the one in a map; see `read_label_maps`."""
    labels = len(cast(SemanticSegmentation, asker.bundle.manifest.postprocessing).labels)
    opened = read_label_maps(data)
    images = opened if limit is None else spread(opened, limit)
    asked = ask(asker, images, lambda result: result.numbers)

    def counted(side: Sequence[NDArray[np.uint16]]) -> SegmentationQuality:
        counts = np.zeros((labels, labels), np.int64)
        for image, numbers in zip(images, side, strict=True):
            truth = read_map(image, numbers.shape, labels)
            known = truth != IGNORED
            pairs = truth[known] * labels + numbers[known]
            counts += np.bincount(pairs, minlength=labels * labels).reshape(labels, labels)
        return segmentation_quality(counts)

    theirs, agreement = asked.theirs, None
    if theirs is not None:
        same = sum(int((one == other).sum()) for one, other in zip(asked.own, theirs, strict=True))
        agreement = same / sum(each.size for each in asked.own)
    return SegmentationEvaluation(
        executed_by=asked.executed_by,
        n=len(images),
        bundle=counted(asked.own),
        source=None if theirs is None else counted(theirs),
        agreement=agreement,
        notes=asked.notes,
    )
