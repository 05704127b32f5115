"""Images: how they become a model's input, and the tasks whose answers are places in them, objects and masks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeformer_runtime.bundle.manifest import MANIFEST_NAME, Manifest, check_unique
from edgeformer_runtime.bundle.specs import ProgramSpec, TensorSpec
from edgeformer_runtime.bundle.strict_json import OPTIONAL
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.tasks.task import AnswerKind, InputKind, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeformer_runtime.pipelines.vision import DetectionResult, SegmentationResult

IMAGE_PROGRAM = "image"
IMAGE_INPUT = "pixels"
ROWS, COLUMNS = "rows", "columns"

PIXEL_TOLERANCE_LEVELS = 2.01
"""Of 256: implementations of one filter may round differently in each of its two passes; the rest is float32's."""


# What a vision model expects of its pixels, as data: the part of image preprocessing that a manifest holds.

INTERPOLATIONS = ("bicubic", "bilinear")
PAD = "pad"
CROPS = ("center", "center-floor", "squash", PAD)
MAX_PADDED_SIDE = 2048
"""Pixels of an input that is padded: twice the side is four times the work, and a photo fills a part of it."""


@dataclass(frozen=True)
class ImagePreprocessing:
    """What happens to an image before the model: resize, crop, scale to 0..1, normalise. All sizes in pixels.

    Attributes:
        height: rows of the model's input.
        width: columns of the model's input.
        resize_short_side: what the image is resized to before its center is cropped: the short side where `crop` is
            "center" or "center-floor" (the aspect ratio is kept), both sides where it is "squash" (it is lost). Of
            "pad" the short side at most.
        interpolation: "bicubic" or "bilinear", both with a filter that widens when it shrinks (antialiasing).
        crop: one of `CROPS`. A crop begins at half of what is cut off, halves rounded to even or down ("-floor"). With
            "pad" nothing is cut off: the image keeps its aspect ratio and stands at the top left, black is added at the
            bottom and the right, and the program takes beside the pixels which rows and columns the image fills.
        mean: per channel, of values scaled to 0..1.
        std: per channel, of values scaled to 0..1.
        channels: order of the channels; only "RGB".
        layout: order of the model's input; only "NCHW".
        resize_long_side: of "pad", the long side at most; else None.
        multiple_of: of "pad", sides of the resized image are rounded down to multiples of this.
    """

    height: int
    width: int
    resize_short_side: int
    interpolation: str
    crop: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channels: str = "RGB"
    layout: str = "NCHW"
    kind: str = "image"
    resize_long_side: int | None = field(default=None, metadata=OPTIONAL)
    multiple_of: int = field(default=1, metadata=OPTIONAL)

    def __post_init__(self) -> None:
        for name, value, valid in (
            ("interpolation", self.interpolation, INTERPOLATIONS),
            ("crop", self.crop, CROPS),
            ("channels", self.channels, ("RGB",)),
            ("layout", self.layout, ("NCHW",)),
            ("kind", self.kind, ("image",)),
        ):
            if value not in valid:
                raise InputError(f"image preprocessing: {name} must be one of {', '.join(valid)}, found {value!r}")
        if self.crop == PAD:
            self._check_padding()
        elif self.resize_long_side is not None or self.multiple_of != 1:
            raise InputError("image preprocessing: resize_long_side and multiple_of belong to the crop 'pad'")
        elif min(self.height, self.width) < 1 or self.resize_short_side < max(self.height, self.width):
            raise InputError(
                f"image preprocessing: expected 1 <= height, width <= resize_short_side, found {self.height}, "
                f"{self.width} and {self.resize_short_side}"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or not all(value > 0 for value in self.std):
            raise InputError(
                f"image preprocessing: expected three means and three std above 0, found {self.mean} and {self.std}"
            )

    @property
    def is_stretched(self) -> bool:
        """Whether the input is all of the image and nothing else."""
        return self.crop == "squash" and self.height == self.width == self.resize_short_side

    def _check_padding(self) -> None:
        """The largest image fits, either way up, and the smallest multiple is no larger than what sides may be."""
        longest = self.resize_long_side or 0
        most = longest - longest % self.multiple_of if self.multiple_of > 0 else 0
        least = min(self.height, self.width)
        if not 1 <= most <= least or not self.multiple_of <= self.resize_short_side <= longest:
            raise InputError(
                "image preprocessing: expected multiple_of <= resize_short_side <= resize_long_side, and of the latter "
                f"at most height and width, found {self.multiple_of}, {self.resize_short_side}, "
                f"{self.resize_long_side}, {self.height} and {self.width}"
            )
        if max(self.height, self.width) > MAX_PADDED_SIDE:
            raise InputError(f"image preprocessing: expected a padded input of at most {MAX_PADDED_SIDE} pixels a side")


# The last step of an image's preprocessing, 8-bit values to a model's input, and back.


def normalisation_table(spec: ImagePreprocessing) -> NDArray[np.float32]:
    """(3, 256) float32: what each 8-bit value of each channel becomes. An image has no other values."""
    levels = np.arange(256, dtype=np.uint8).astype(np.float32) / np.float32(255)
    mean, std = np.array(spec.mean, dtype=np.float32), np.array(spec.std, dtype=np.float32)
    table: NDArray[np.float32] = (levels[None] - mean[:, None]) / std[:, None]
    return table


def to_input(levels: NDArray[np.uint8], spec: ImagePreprocessing) -> NDArray[np.float32]:
    """8-bit RGB values (1, 3, H, W) to normalised pixels of the same shape."""
    return np.stack([row[plane] for row, plane in zip(normalisation_table(spec), levels[0], strict=True)])[None]


def to_levels(pixels: NDArray[np.float32], spec: ImagePreprocessing) -> NDArray[np.uint8]:
    """Normalised pixels (1, 3, H, W) back to the 8-bit values that they come from.

    Raises:
        ValueError: they do not come from such values.
    """
    rows = zip(normalisation_table(spec), pixels[0], strict=True)
    levels = np.stack([np.searchsorted(row, plane).clip(max=255) for row, plane in rows])[None].astype(np.uint8)
    if not np.array_equal(to_input(levels, spec), pixels):
        raise ValueError("expected pixels that come from 8-bit values, found others")
    return levels


# What bundles of images have in common.


def image_inputs(spec: ImagePreprocessing) -> tuple[TensorSpec, ...]:
    """What a program of images takes: pixels, and of padded ones which rows and columns the image fills, 1 or 0."""
    pixels = TensorSpec(IMAGE_INPUT, "float32", (1, 3, spec.height, spec.width))
    if spec.crop != PAD:
        return (pixels,)
    return pixels, TensorSpec(ROWS, "float32", (1, spec.height)), TensorSpec(COLUMNS, "float32", (1, spec.width))


def _check_image(manifest: Manifest) -> None:
    """There is one program, and its inputs are what the preprocessing gives."""
    spec, programs = manifest.preprocessing, manifest.programs
    assert isinstance(spec, ImagePreprocessing)
    expected = image_inputs(spec)
    if [program.name for program in programs] != [IMAGE_PROGRAM] or programs[0].inputs != expected:
        others = "".join(f", {each.name!r} of shape {each.shape}" for each in expected[1:])
        raise BundleError(
            f"{MANIFEST_NAME}: programs: images have one program {IMAGE_PROGRAM!r} with "
            f"{'one input' if len(expected) == 1 else 'the inputs'} {IMAGE_INPUT!r}, float32 of shape "
            f"{expected[0].shape}{others}"
        )


def _to_stored(spec: ImagePreprocessing, tensor: NDArray[Any]) -> NDArray[np.uint8]:
    """Pixels as the 8-bit values that they come from; rows and columns are 0 and 1."""
    return to_levels(tensor.astype(np.float32), spec) if tensor.ndim == 4 else tensor.astype(np.uint8)


def _from_stored(spec: ImagePreprocessing, stored: NDArray[Any]) -> NDArray[np.float32]:
    return to_input(stored.astype(np.uint8), spec) if stored.ndim == 4 else stored.astype(np.float32)


def _largest(_: Manifest, __: ProgramSpec, name: str) -> int | None:
    """Of what is stored of rows and columns; pixels are any."""
    return None if name == IMAGE_INPUT else 1


def _pixel_tolerance(spec: ImagePreprocessing) -> float:
    return PIXEL_TOLERANCE_LEVELS / (255 * min(spec.std))


def _describe_image(spec: ImagePreprocessing) -> str:
    if spec.crop == PAD:
        sides = f"short side to at most {spec.resize_short_side}, long side to at most {spec.resize_long_side}"
        return f"image, {spec.interpolation}, {sides}, padded to {spec.width}x{spec.height} {spec.channels}"
    side = f"{'both sides' if spec.crop == 'squash' else 'short side'} to {spec.resize_short_side}"
    return f"image, {spec.interpolation}, {side}, center crop to {spec.width}x{spec.height} {spec.channels}"


IMAGE = InputKind(
    kind="image",
    record=ImagePreprocessing,
    check=_check_image,
    stored_forms=(("image",),),
    stored_file="image",
    stored_dtypes={"float32": "uint8"},
    to_stored=_to_stored,
    from_stored=_from_stored,
    largest=_largest,
    tolerance=_pixel_tolerance,
    describe=_describe_image,
    run="edgeformer_runtime.cli.run:run_files",
    takes="images: expected their paths",
    asks_for="paths of images",
    options=("--top",),
    frame="edgeformer_runtime.isolation.messages:file_frame",
    extra="images",
)


# Objects with boxes.


BOX = 4
"""Numbers of a box: of an output its center, width and height, as shares of the image's; of an answer its left, top,
right and bottom in pixels."""
LOGITS, BOXES = "logits", "boxes"
"""The outputs of a program that detects objects, of Q places: (1, Q, L or L + 1), and (1, Q, 4)."""


@dataclass(frozen=True)
class ObjectDetection:
    """Each place that the model looks at is an object with a label and a box, or none.

    Attributes:
        labels: in the order of the logits; several may have one name, as numbers that a data set does not use.
        activation: "softmax": one label holds at a place, and one logit more, the last one, says that there is no
            object. "sigmoid": each label may hold by itself.
        threshold: an object's score is above this, where a call says nothing else.
        most: of "sigmoid": the pairs of a place and a label with the best scores, so many, are objects; else None.
    """

    labels: tuple[str, ...]
    activation: str
    threshold: float = 0.5
    most: int | None = None
    kind: str = "objects"

    @property
    def width(self) -> int:
        """Logits of a place."""
        return len(self.labels) + (self.activation == "softmax")


@dataclass(frozen=True)
class DetectionOptions:
    """What a call asks for: objects whose score is above the threshold; None: as the bundle says."""

    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise InputError(f"threshold: expected a score from 0 to 1, found {self.threshold}")


def _check_objects(manifest: Manifest) -> None:
    head, spec = manifest.postprocessing, manifest.preprocessing
    assert isinstance(head, ObjectDetection) and isinstance(spec, ImagePreprocessing)
    if spec.crop != PAD and not spec.is_stretched:
        raise BundleError(f"{MANIFEST_NAME}: preprocessing: boxes are of the whole image, expected 'pad' or a square")
    if (head.most is None) != (head.activation == "softmax"):
        raise BundleError(f"{MANIFEST_NAME}: postprocessing.most: expected a number for sigmoid, null for softmax")
    for program in manifest.programs:
        found = {each.name: (each.dtype, each.shape) for each in program.outputs}
        places = found.get(LOGITS, ("", (1, 0)))[1][1:2]
        expected = {LOGITS: ("float32", (1, *places, head.width)), BOXES: ("float32", (1, *places, BOX))}
        if found != expected or not all(places):
            raise BundleError(
                f"{MANIFEST_NAME}: program {program.name}: expected the float32 outputs {LOGITS} of shape "
                f"(1, Q, {head.width}) and {BOXES} of shape (1, Q, {BOX})"
            )


def _check_found(case: Mapping[str, Any], head: ObjectDetection, where: str) -> None:
    if case["expected"].keys() != {"objects"}:
        raise BundleError(f"{where}: expected: expected objects alone")
    for each in case["expected"]["objects"]:
        numbers = (each["score"], *each["box"])
        if each["label"] not in head.labels or not all(map(math.isfinite, numbers)) or not 0 <= each["score"] <= 1:
            raise BundleError(f"{where}: expected.objects: expected the manifest's labels, scores and boxes")


def _show_objects(result: DetectionResult, top: int) -> str:
    shown = [f"{each.label} {each.score:.3f} [{', '.join(f'{x:.0f}' for x in each.box)}]" for each in result.objects]
    return "  ".join(shown[:top]) or "-"


OBJECTS = AnswerKind(
    kind="objects",
    record=ObjectDetection,
    check=_check_objects,
    check_expected=_check_found,
    describe=lambda head: f"objects of {len(head.labels)} labels, {head.activation}, score above {head.threshold:g}",
    result="edgeformer_runtime.pipelines.vision:DetectionResult",
    best=lambda result, top: result.top(top),
    show=_show_objects,
    plural="objects",
    replay="edgeformer_runtime.verify.program_replay:ObjectReplay",
    options="edgeformer_runtime.tasks.vision:DetectionOptions",
    run_options=("--threshold",),
    call_options=lambda options: None if options.threshold is None else DetectionOptions(options.threshold),
)

OBJECT_DETECTION = Task(
    name="object-detection",
    takes=IMAGE,
    gives=OBJECTS,
    pipeline="edgeformer_runtime.pipelines.vision:ObjectDetector",
    serve="edgeformer_runtime.serve.routes:add_object_detection",
)


# A label for each pixel.


MAX_SEGMENT_LABELS = 65535
"""A map of labels has 16 bits for each pixel."""


@dataclass(frozen=True)
class SemanticSegmentation:
    """The output is the logits (1, L, h, w) of each label on a grid that covers the image; every pixel gets one."""

    labels: tuple[str, ...]
    kind: str = "segments"


def _check_segments(manifest: Manifest) -> None:
    head, spec = manifest.postprocessing, manifest.preprocessing
    assert isinstance(head, SemanticSegmentation) and isinstance(spec, ImagePreprocessing)
    check_unique(head.labels, "label")
    if not spec.is_stretched:
        raise BundleError(f"{MANIFEST_NAME}: preprocessing: masks are of the whole image, expected a square of it all")
    for program in manifest.programs:
        found = [(each.dtype, each.shape[:2], len(each.shape)) for each in program.outputs]
        if found != [("float32", (1, len(head.labels)), 4)]:
            raise BundleError(
                f"{MANIFEST_NAME}: program {program.name}: expected one float32 output of shape "
                f"(1, {len(head.labels)}, rows, columns)"
            )


def _check_shares(case: Mapping[str, Any], head: SemanticSegmentation, where: str) -> None:
    if case["expected"].keys() != {"segments"}:
        raise BundleError(f"{where}: expected: expected segments alone")
    for each in case["expected"]["segments"]:
        if each["label"] not in head.labels or not 0 < each["share"] <= 1:
            raise BundleError(f"{where}: expected.segments: expected the manifest's labels and shares above 0")


def _show_segments(result: SegmentationResult, top: int) -> str:
    return "  ".join(f"{each.label} {each.share:.1%}" for each in result.top(top).segments)


SEGMENTS = AnswerKind(
    kind="segments",
    record=SemanticSegmentation,
    check=_check_segments,
    check_expected=_check_shares,
    describe=lambda head: f"a label of {len(head.labels)} for each pixel",
    result="edgeformer_runtime.pipelines.vision:SegmentationResult",
    best=lambda result, top: result.top(top),
    show=_show_segments,
    plural="segments",
    replay="edgeformer_runtime.verify.program_replay:SegmentReplay",
    run_options=("--masks",),
)

IMAGE_SEGMENTATION = Task(
    name="image-segmentation",
    takes=IMAGE,
    gives=SEGMENTS,
    pipeline="edgeformer_runtime.pipelines.vision:ImageSegmenter",
    serve="edgeformer_runtime.serve.routes:add_image_segmentation",
)
