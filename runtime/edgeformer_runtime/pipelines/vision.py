"""Image pipelines: classification, embedding, objects with boxes, and a label for each pixel."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeformer_runtime.bundle import strict_json
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.specs import Classification
from edgeformer_runtime.engines import Engine, Tensor
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines.program import Prepared, ProgramPipeline
from edgeformer_runtime.pipelines.results import (
    ClassificationResult,
    EmbeddingResult,
    JsonResult,
    ProgramResult,
    Statistics,
    classify,
    embed,
    finite,
    finite_row,
    sigmoid,
)
from edgeformer_runtime.preprocess.image import ImageEncoder, RawImage
from edgeformer_runtime.tasks.vision import (
    BOX,
    BOXES,
    IMAGE_PROGRAM,
    LOGITS,
    DetectionOptions,
    ImagePreprocessing,
    ObjectDetection,
    SemanticSegmentation,
)

if TYPE_CHECKING:
    from edgeformer_runtime.bundle.vectors import Case

Answer = TypeVar("Answer", bound=ProgramResult)
Values = NDArray[np.float64]

AT_ONCE = 1 << 20
"""Interpolated logits that are held at a time."""

RECORDED = DetectionOptions(threshold=0.0)
"""Vectors hold objects whatever their scores, as a model may be sure of none."""


class ImagePipeline(ProgramPipeline[RawImage, Answer]):
    """Answers an image: a path, a file's bytes, a Pillow image or an array."""

    def __init__(self, bundle: Bundle, engine: Engine, owned: bool = False) -> None:
        """Use `edgeformer_runtime.load`."""
        super().__init__(bundle, engine, owned)
        self._encode = ImageEncoder(cast(ImagePreprocessing, bundle.manifest.preprocessing))

    def prepare(self, raw: RawImage) -> Prepared:
        """Decode, resize, crop or pad, and normalise one image."""
        inputs, size = self._encode.inputs(raw)
        return Prepared(IMAGE_PROGRAM, dict(inputs), truncated=False, size=size)

    def raw_from_json(self, stored: Mapping[str, Any]) -> RawImage:
        """{"image"}: the name of a file of the bundle."""
        return self.bundle.path(stored["image"])


class ImageClassifier(ImagePipeline[ClassificationResult]):
    """Scores every label of the bundle for an image."""

    def answer(self, outputs: Mapping[str, Tensor], prepared: Prepared) -> ClassificationResult:
        """Labels and probabilities, best first."""
        return classify(outputs, cast(Classification, self.bundle.manifest.postprocessing), prepared.truncated)


class ImageEmbedder(ImagePipeline[EmbeddingResult]):
    """Gives an image's embedding."""

    def answer(self, outputs: Mapping[str, Tensor], prepared: Prepared) -> EmbeddingResult:
        """The program's output."""
        return embed(outputs, prepared.truncated)


# Objects.


@dataclass(frozen=True)
class DetectedObject:
    """`box` is (left, top, right, bottom) in pixels of the image that was given, which it may leave."""

    label: str
    score: float
    box: tuple[float, ...]


@dataclass(frozen=True)
class DetectionResult(JsonResult):
    """Objects of an image.

    Attributes:
        objects: best first; equal scores keep the order of the model's places.
        truncated: never: images are resized.
        statistics: what the answer cost; None where it was not measured.
    """

    objects: tuple[DetectedObject, ...]
    truncated: bool = False
    statistics: Statistics | None = None

    def top(self, k: int) -> DetectionResult:
        """The same answer with its `k` best objects, or all where there are fewer.

        Raises:
            InputError: `k` is below 1.
        """
        if k < 1:
            raise InputError(f"top: expected at least 1 object, found {k}")
        return replace(self, objects=self.objects[:k])

    def to_json(self) -> dict[str, Any]:
        """{"objects": [{"label", "score", "box": [left, top, right, bottom]}]}, best first."""
        return {"objects": [{**vars(each), "box": list(each.box)} for each in self.objects]}

    def check(self, head: ObjectDetection) -> None:
        """See `JsonResult.check`: labels of the manifest, probabilities, and boxes of four numbers."""
        known = set(head.labels)
        for each in self.objects:
            if each.label not in known or not 0 <= each.score <= 1:
                raise ValueError("an object has no label of the manifest's, or no score")
            if len(each.box) != BOX or not all(map(math.isfinite, each.box)):
                raise ValueError("a box is none")


class ObjectDetector(ImagePipeline[DetectionResult]):
    """Finds the objects in an image."""

    def answer(self, outputs: Mapping[str, Tensor], prepared: Prepared) -> DetectionResult:
        """Objects above the bundle's threshold."""
        return self.answer_windows([outputs], [prepared])

    def answer_windows(
        self, outputs: Sequence[Mapping[str, Tensor]], windows: Sequence[Prepared], options: Any = None
    ) -> DetectionResult:
        """Objects above a call's threshold, or the bundle's."""
        head = cast(ObjectDetection, self.bundle.manifest.postprocessing)
        asked: DetectionOptions = options or DetectionOptions()
        size = windows[0].size
        assert size is not None
        return DetectionResult(
            tuple(detect(outputs[0], head, size, head.threshold if asked.threshold is None else asked.threshold))
        )

    def record(self, stored: Mapping[str, Any]) -> Case:
        """See `ProgramPipeline.record`: with objects of every score."""
        from edgeformer_runtime.bundle.vectors import Case

        prepared = self.prepare(self.raw_from_json(stored))
        outputs = self.engine.run(prepared.program, prepared.inputs)
        expected = self.answer_windows([outputs], [prepared], RECORDED).to_json()
        return Case(prepared.program, dict(stored), expected, prepared.inputs, outputs)


def detect(
    outputs: Mapping[str, Tensor], head: ObjectDetection, size: tuple[int, int], threshold: float
) -> list[DetectedObject]:
    """Objects, best first, as transformers' `post_process_object_detection` finds them.

    Args:
        outputs: `logits` (1, Q, L or L + 1) and `boxes` (1, Q, 4) of Q places.
        head: the manifest's postprocessing.
        size: width and height of the image.
        threshold: what scores are above.

    Raises:
        EngineError: the outputs hold NaN or infinity.
    """
    scores = object_scores(finite(outputs[LOGITS], LOGITS)[0].astype(np.float64), head)  # (Q, L)
    middles, sides = np.split(finite(outputs[BOXES], BOXES)[0].astype(np.float64), 2, axis=1)  # (Q, 2) each
    boxes = np.concatenate((middles - sides / 2, middles + sides / 2), axis=1) * (*size, *size)
    if head.most is None:
        pairs = [(place, int(label)) for place, label in enumerate(scores.argmax(axis=1))]
    else:
        best = np.argsort(-scores.ravel(), kind="stable")[: head.most]
        pairs = [divmod(int(index), len(head.labels)) for index in best]
    found = [
        DetectedObject(head.labels[label], float(scores[place, label]), tuple(boxes[place].tolist()))
        for place, label in pairs
        if scores[place, label] > threshold
    ]
    return sorted(found, key=lambda each: -each.score)


def object_scores(logits: Values, head: ObjectDetection) -> Values:
    """Logits (Q, L or L + 1) to the probabilities (Q, L) of each place's labels, without that of no object."""
    if head.activation == "sigmoid":
        return sigmoid(logits)
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return cast(Values, (exponents / exponents.sum(axis=1, keepdims=True))[:, :-1])


# A label for each pixel.


@dataclass(frozen=True, eq=False)
class Segment:
    """A label of the bundle's, by its number, with its share of all pixels.

    Attributes:
        label, number: which.
        share: of the image's pixels, above 0.
        numbers: (H, W) uint16, each pixel's label.
    """

    label: str
    number: int
    share: float
    numbers: NDArray[np.uint16]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W): where the label is, in the image that was given."""
        found: NDArray[np.bool_] = self.numbers == self.number
        return found

    @property
    def file_name(self) -> str:
        """For a file of it: the label's number among the bundle's, and of its name what any file's may have."""
        return f"{self.number}.{re.sub(r'[^A-Za-z0-9]+', '-', self.label)[:64]}.png"

    def write(self, path: Path) -> None:
        """The mask as a PNG of black and, where the label is, white."""
        Image.fromarray(self.mask).save(path, "PNG")


@dataclass(frozen=True, eq=False)
class SegmentationResult:
    """What is where in an image.

    Attributes:
        numbers: (H, W) uint16, each pixel's label as an index of `labels`, for the image that was given, upright.
        labels: those of the bundle.
        shown: the labels that `segments` has, by their numbers; None: all that occur.
        truncated: never: images are resized.
        statistics: what the answer cost; None where it was not measured.
    """

    numbers: NDArray[np.uint16]
    labels: tuple[str, ...]
    shown: tuple[int, ...] | None = None
    truncated: bool = False
    statistics: Statistics | None = None

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Those that occur, in the order of the labels."""
        counts = np.bincount(self.numbers.ravel(), minlength=len(self.labels))
        shown = np.flatnonzero(counts).tolist() if self.shown is None else self.shown
        total = self.numbers.size
        return tuple(Segment(self.labels[each], each, float(counts[each] / total), self.numbers) for each in shown)

    def top(self, k: int) -> SegmentationResult:
        """The same answer with its `k` largest segments, or all where there are fewer.

        Raises:
            InputError: `k` is below 1.
        """
        if k < 1:
            raise InputError(f"top: expected at least 1 segment, found {k}")
        counts = np.bincount(self.numbers.ravel())
        largest = np.argsort(-counts, kind="stable")[: min(k, np.count_nonzero(counts))]
        return replace(self, shown=tuple(sorted(largest.tolist())))

    def to_json(self) -> dict[str, Any]:
        """{"segments": [{"label", "share", "mask": {"size": [H, W], "counts"}}]}: run lengths as COCO has them.

        The runs go down the columns, from the left one on; those of pixels that are not the label's come first.
        """
        down = self.numbers.ravel(order="F")
        edges = np.concatenate(([0], np.flatnonzero(np.diff(down)) + 1, [down.size]))
        runs = [(down[edges[:-1]] == each.number).nonzero()[0] for each in self.segments]
        size = [*self.numbers.shape]
        return {
            "segments": [
                {"label": each.label, "share": each.share, "mask": {"size": size, "counts": _counts(edges, own)}}
                for each, own in zip(self.segments, runs, strict=True)
            ]
        }

    def expected_json(self) -> dict[str, Any]:
        """What vectors store of the answer besides the program's outputs: labels and shares."""
        return {"segments": [{"label": each.label, "share": each.share} for each in self.segments]}

    def to_frame(self) -> tuple[dict[str, Any], bytes]:
        """See `Result.to_frame`."""
        header = {"size": [*self.numbers.shape], "statistics": strict_json.to_data(self.statistics)}
        return header, self.numbers.tobytes()

    @classmethod
    def from_frame(cls, header: dict[str, Any], body: bytes, head: SemanticSegmentation) -> SegmentationResult:
        """See `Result.from_frame`: every pixel has a label of the manifest's."""
        numbers = np.frombuffer(body, np.uint16).reshape(header["size"]).copy()
        if numbers.ndim != 2 or not numbers.size or numbers.max() >= len(head.labels):
            raise ValueError("its labels are not the manifest's")
        statistics = strict_json.from_data(Statistics, header["statistics"], "answer")
        return cls(numbers, head.labels, statistics=statistics)


def _counts(edges: NDArray[np.int64], own: NDArray[np.int64]) -> list[int]:
    """The lengths of the gaps and of a label's runs in turn, from where all runs begin and which are the label's."""
    bounds = np.concatenate(([0], np.stack((edges[own], edges[own + 1]), axis=1).ravel(), edges[-1:]))
    counts: list[int] = np.diff(bounds).tolist()
    return counts if counts[-1] else counts[:-1]


class ImageSegmenter(ImagePipeline[SegmentationResult]):
    """Gives every pixel of an image a label."""

    def answer(self, outputs: Mapping[str, Tensor], prepared: Prepared) -> SegmentationResult:
        """The best label at each pixel of the image that was given."""
        head = cast(SemanticSegmentation, self.bundle.manifest.postprocessing)
        assert prepared.size is not None
        return SegmentationResult(segment(finite_row(outputs).astype(np.float32), prepared.size), head.labels)


def segment(logits: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint16]:
    """The best label at each pixel, as transformers' `post_process_semantic_segmentation` finds it.

    Where one label is the best at all four places around a pixel, it is so between them: only what is left is
    interpolated, which is little of a photo.

    Args:
        logits: (L, h, w) on a grid that covers the image.
        size: its width and height, W and H.

    Returns:
        (H, W): of the logits, interpolated between the places' centers, the largest one's number.
    """
    best = logits.argmax(axis=0)
    columns, rows = (_between(out, inside) for out, inside in zip(size, logits.shape[:0:-1], strict=True))
    found: NDArray[np.uint16] = best[np.ix_(rows[0], columns[0])].astype(np.uint16)
    mixed = np.zeros(found.shape, np.bool_)
    for row in rows[:2]:
        for column in columns[:2]:
            mixed |= best[np.ix_(row, column)] != found
    down, across = np.nonzero(mixed)
    places = np.ascontiguousarray(logits.reshape(len(logits), -1).T)  # (h w, L)
    step = max(1, AT_ONCE // len(logits))
    for first in range(0, len(down), step):
        y, x = down[first : first + step], across[first : first + step]
        sums = np.zeros((len(y), len(logits)), np.float32)
        for row, below in ((rows[0][y], 1 - rows[2][y]), (rows[1][y], rows[2][y])):
            for column, right in ((columns[0][x], 1 - columns[2][x]), (columns[1][x], columns[2][x])):
                sums += places[row * logits.shape[2] + column] * (below * right)[:, None]
        found[y, x] = sums.argmax(axis=1)
    return found


def _between(out: int, inside: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For each of `out` pixels the places before and behind it of `inside` ones, and how far it is from the first."""
    places = np.maximum((np.arange(out) + 0.5) * (inside / out) - 0.5, 0)
    before = places.astype(np.int64)
    return before, np.minimum(before + 1, inside - 1), (places - before).astype(np.float32)
