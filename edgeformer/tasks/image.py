"""The tasks of images: classification, embedding, objects and segments, texts beside images; and images to judge by."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image

from edgeformer.models.family import ProgramOptions
from edgeformer.tasks.task import Metric, Task, TaskSpec, Training
from edgeformer.tasks.text import ACCURACY, MAX_CALIBRATION_SAMPLES, TENSOR_PEERS, bucket_lengths, sentences, text_spec
from edgeformer_runtime.bundle.manifest import Manifest
from edgeformer_runtime.bundle.specs import Classification, Embedding, Postprocessing, TextPreprocessing
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.tasks.image_text import ImageTextPreprocessing, Similarity, text_programs
from edgeformer_runtime.tasks.vision import (
    BOX,
    BOXES,
    LOGITS,
    PAD,
    ImagePreprocessing,
    ObjectDetection,
    SemanticSegmentation,
)

if TYPE_CHECKING:
    from edgeformer.checkpoints.checkpoint import Checkpoint
    from edgeformer.models.family import Program

IMAGE_SIZES = ((320, 240), (200, 300), (64, 64))
"""Width and height: landscape, portrait, and smaller than most models want."""
GATE_IMAGES = 32
"""Drawn, for every bundle to be judged on."""
LARGE_INPUT = 1 << 20
"""Pixels above which a quarter of them are enough: a detector's 1333 by 1333 take seconds and 21 MB each."""
_MOST = (100, 300)
"""Objects of an image, where a processor takes the best of all places and labels."""
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif"})


def _spec(checkpoint: Checkpoint, programs: tuple[Program, ...], options: ProgramOptions) -> TaskSpec:  # noqa: ARG001
    return image_spec(CLASSIFICATION, checkpoint, Classification(checkpoint.labels, checkpoint.activation))


def _embedding(checkpoint: Checkpoint, programs: tuple[Program, ...], options: ProgramOptions) -> TaskSpec:  # noqa: ARG001
    # As transformers gives it: its pipeline normalises nothing.
    return image_spec(EMBEDDING, checkpoint, Embedding(programs[0].outputs[0].shape[-1], normalized=False))


def _detection(checkpoint: Checkpoint, programs: tuple[Program, ...], options: ProgramOptions) -> TaskSpec:  # noqa: ARG001
    _check_whole(checkpoint, may_be_padded=True)
    _, places, width = programs[0].outputs[0].shape
    return image_spec(DETECTION, checkpoint, read_detection(checkpoint.folder, checkpoint.labels, places, width))


def read_detection(folder: Path, labels: tuple[str, ...], places: int, width: int) -> ObjectDetection:
    """How a folder's image processor reads the outputs of a model that looks at so many places.

    Args:
        folder: the checkpoint's.
        labels: the model's.
        places: Q of its outputs (1, Q, `width`) and (1, Q, 4).
        width: logits of a place.

    Raises:
        InputError: it reads them in another way than a bundle can.
    """
    import torch

    from edgeformer.models.adapted_images import PROCESSOR_FILE, load_image_processor
    from edgeformer.models.config import refusing
    from edgeformer_runtime.pipelines.vision import detect

    processor = load_image_processor(folder)
    names = tuple(map(str, range(len(labels))))
    generator = np.random.default_rng(0)
    size = (61, 40)
    logits = generator.normal(0, 2, (1, places, width)).astype(np.float32)
    outputs = {LOGITS: logits, BOXES: generator.uniform(0.1, 0.9, (1, places, BOX)).astype(np.float32)}
    answer = SimpleNamespace(logits=torch.from_numpy(logits), pred_boxes=torch.from_numpy(outputs[BOXES]))
    tried = [
        ObjectDetection(names, "softmax"),
        *(ObjectDetection(names, "sigmoid", most=most) for most in dict.fromkeys((*_MOST, places))),
    ]
    with refusing(f"{type(processor).__name__} cannot read a detector's outputs:"):
        (found,) = processor.post_process_object_detection(answer, threshold=0.0, target_sizes=[size[::-1]])
        order = torch.argsort(-found["scores"], stable=True)
        columns = [found[key][order].numpy() for key in ("scores", "labels", "boxes")]
    for head in tried:
        if head.width != width:
            continue
        own = detect(outputs, head, size, 0.0)
        mine = [np.array([each.score for each in own]), np.array([int(each.label) for each in own])]
        same = len(own) == len(columns[0]) and np.allclose(mine[0], columns[0], atol=1e-5)
        if same and (mine[1] == columns[1]).all() and np.allclose([each.box for each in own], columns[2], atol=1e-3):
            return replace(head, labels=labels)
    raise InputError(
        f"{PROCESSOR_FILE}: image_processor_type is {type(processor).__name__}, which reads {width} logits of "
        f"{len(labels)} labels otherwise than a bundle: expected a softmax with one logit for no object, or sigmoids"
    )


def _segmentation(checkpoint: Checkpoint, programs: tuple[Program, ...], options: ProgramOptions) -> TaskSpec:  # noqa: ARG001
    _check_whole(checkpoint, may_be_padded=False)
    return image_spec(SEGMENTATION, checkpoint, SemanticSegmentation(checkpoint.labels))


def _check_whole(checkpoint: Checkpoint, may_be_padded: bool) -> None:
    """Refuse a processor that cuts something off of the image whose places are the answer."""
    spec = checkpoint.config.preprocessing
    if not spec.is_stretched and not (may_be_padded and spec.crop == PAD):
        raise InputError(
            f"preprocessor_config.json: size and crop leave {spec.width} x {spec.height} pixels that are not all of an "
            "image, or more: expected a size of one height and width, and no crop"
        )


def image_spec(task: Task, checkpoint: Checkpoint, postprocessing: Postprocessing) -> TaskSpec:
    """What surrounds a model of images, with drawn ones as samples."""
    assets = {f"vectors/image_{index}.png": content for index, content in enumerate(images())}
    return TaskSpec(
        task=task,
        preprocessing=checkpoint.config.preprocessing,
        postprocessing=postprocessing,
        assets=assets,
        samples=tuple({"image": name} for name in assets),
    )


def images() -> Iterator[bytes]:
    """PNG files of smooth colours, a quarter of them with noise on it, in each of `IMAGE_SIZES`."""
    generator = np.random.default_rng(0)
    for width, height in IMAGE_SIZES:
        x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
        waves = np.stack([np.sin(7 * x + 3 * y), np.cos(5 * y), np.sin(9 * x * y)], axis=-1)  # (height, width, 3)
        pixels = 127 + 90 * waves
        # Noise shows how a resize rounds, and is what makes a PNG large.
        pixels[height // 4 : height // 2, : width // 2] += generator.normal(0, 12, (height // 4, width // 2, 3))
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "PNG")
        yield file.getvalue()


def varied_images(count: int) -> Iterator[bytes]:
    """PNG files of 240 by 240 pixels, each another: a shading, shapes of all colours and a little noise."""
    generator = np.random.default_rng(1)
    side = 240
    x, y = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side))
    for _ in range(count):
        slopes = generator.uniform(-90, 90, (2, 3))
        pixels = generator.uniform(60, 200, 3) + x[..., None] * slopes[0] + y[..., None] * slopes[1]  # (side, side, 3)
        for _ in range(int(generator.integers(1, 6))):
            (left, top), (width, height) = generator.uniform(0, 0.8, 2), generator.uniform(0.1, 0.5, 2)
            inside = (np.abs(x - left - width / 2) < width / 2) & (np.abs(y - top - height / 2) < height / 2)
            if generator.random() < 0.5:
                inside = ((x - left) / width) ** 2 + ((y - top) / height) ** 2 < 1
            pixels[inside] = generator.uniform(0, 255, 3)
        pixels += generator.normal(0, generator.uniform(0, 20), pixels.shape)
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "PNG")
        yield file.getvalue()


def calibrate(programs: tuple[Program, ...], spec: TaskSpec, data: Path) -> tuple[Program, ...]:
    """Programs with the images of a folder as calibration inputs, `MAX_CALIBRATION_SAMPLES` at most.

    Raises:
        InputError: there are no images, or one of them cannot be read.
    """
    inputs = _encoded(spec, _spread(data))
    return tuple(replace(program, calibration=inputs) for program in programs)


def _sample_inputs(spec: TaskSpec) -> tuple[tuple[Any, ...], ...]:
    """The samples. Enough to round weights by, though real images are better: TinyViT-5M's lowest cosine on photographs
    goes from .994 to .997, with 16 images that are no photographs to .999. Too little to take ranges of activations
    from.
    """
    return _encoded(spec, (spec.assets[each["image"]] for each in spec.samples))


def _encoded(spec: TaskSpec, files: Iterator[Any]) -> tuple[tuple[Any, ...], ...]:
    """The model's inputs of each file."""
    import torch

    from edgeformer_runtime.preprocess.image import ImageEncoder

    encode = ImageEncoder(cast(ImagePreprocessing, spec.preprocessing))
    return tuple(tuple(map(torch.from_numpy, encode.inputs(file)[0].values())) for file in files)


def _spread(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise InputError(f"no calibration images: {folder} is no folder")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise InputError(f"no calibration images in {folder}: expected files ending in {', '.join(sorted(SUFFIXES))}")
    count = min(len(paths), MAX_CALIBRATION_SAMPLES)
    return (paths[index * len(paths) // count] for index in range(count))


def _gate_inputs(pipeline: Any) -> Iterator[tuple[str, Any]]:
    reads = pipeline.bundle.manifest.preprocessing
    spec = cast(ImagePreprocessing, getattr(reads, "image", reads))
    count = GATE_IMAGES if spec.height * spec.width <= LARGE_INPUT else GATE_IMAGES // 4
    return ((f"drawn image {index}", file) for index, file in enumerate(varied_images(count)))


CLASSIFICATION = Task(
    name="image-classification",
    noun="image classifier",
    takes="image",
    spec=_spec,
    evaluation="edgeformer.evaluate.classification:evaluate_classification",
    peers=TENSOR_PEERS,
    aliases=("classification", "classifier", "vision", "image"),
    architecture="ForImageClassification",
    heads=("classifier.",),
    headless="the checkpoint has no classifier: fine-tune it first",
    labelled=True,
    judged_by_labels=True,
    score_backstop="probability",
    calibrate=calibrate,
    sample_inputs=_sample_inputs,
    gate_inputs=_gate_inputs,
    agreement="edgeformer.convert.agreement:compare_labels",
    metric=ACCURACY,
    training=Training(
        read="edgeformer.compress.corpus:read_images",
        probe="edgeformer.compress.budget.sensitivity:Probe",
        recipes=("tinyvit-narrow", "prune-half"),
        student="edgeformer.compress.student:image_student",
    ),
    checks={"labels": "edgeformer.doctor.check_task:check_labels"},
)

NEIGHBOURS = Metric(
    name="neighbours",
    change="loss of neighbours",
    is_error=False,
    answers="edgeformer.evaluate.classification:nearest_labels",
    noun="images whose nearest neighbour has their label",
)

EMBEDDING = replace(
    CLASSIFICATION,
    name="image-embedding",
    noun="image embedder",
    spec=_embedding,
    evaluation="edgeformer.evaluate.classification:evaluate_neighbours",
    aliases=("imagefeatureextraction", "featureextraction", "embedding", "imageembedder"),
    architecture=None,
    heads=(),
    headless="",
    labelled=False,
    judged_by_labels=False,
    score_backstop="component",
    agreement="edgeformer.convert.agreement:compare_embeddings",
    metric=NEIGHBOURS,
    training=None,
    checks={},
)
"""Of a model without a head: its projection or pooled vector, where it has one, else its first token's vector."""

DETECTION = replace(
    CLASSIFICATION,
    name="object-detection",
    noun="object detector",
    spec=_detection,
    evaluation="edgeformer.evaluate.vision:evaluate_detection",
    aliases=("detection", "detector", "objectdetector", "yolos", "detr"),
    architecture="ForObjectDetection",
    heads=(),
    headless="",
    labels_differ=False,
    on_phones=False,
    judged_by_labels=False,
    agreement="edgeformer.convert.agreement:compare_objects",
    metric=None,
    training=None,
    checks={},
)
"""Of a model that looks at a number of places, and says of each which object is there and where its box lies."""

SEGMENTATION = replace(
    DETECTION,
    name="image-segmentation",
    noun="image segmenter",
    spec=_segmentation,
    evaluation="edgeformer.evaluate.vision:evaluate_segmentation",
    aliases=("segmentation", "semanticsegmentation", "segmenter", "segformer"),
    architecture="ForSemanticSegmentation",
    labels_differ=True,
    agreement="edgeformer.convert.agreement:compare_pixels",
)
"""Of a model that says of places on a grid, which covers the image, what is there."""


# Images beside texts.


SAMPLE_LABELS = ("cat", "dog", "\u4f60\u597d", "\u05e9\u05dc\u05d5\u05dd", "\U0001f44d\U0001f3fd")
"""That the first recorded image is compared with."""


def _image_text(checkpoint: Checkpoint, programs: tuple[Program, ...], options: ProgramOptions) -> TaskSpec:  # noqa: ARG001
    image, *buckets = programs
    if checkpoint.tokenizer_json is None:
        raise InputError("image-text needs a tokenizer, and the checkpoint has none: save it with the model")
    towers: tuple[Any, Any] = image.module, buckets[0].module
    head = Similarity(
        dim=image.outputs[0].shape[-1],
        scale=towers[0].factor,
        bias=towers[0].addend,
        activation="sigmoid" if towers[1].whole else "softmax",
    )
    images = image_spec(IMAGE_TEXT, checkpoint, head)
    texts = text_spec(IMAGE_TEXT, checkpoint, tuple(buckets), head)
    preprocessing = ImageTextPreprocessing(
        cast(ImagePreprocessing, images.preprocessing), cast(TextPreprocessing, texts.preprocessing)
    )
    return replace(
        images,
        preprocessing=preprocessing,
        assets={**images.assets, **texts.assets},
        samples=(
            *images.samples,
            {**images.samples[0], "labels": list(SAMPLE_LABELS)},
            *(each for each in texts.samples if "pair" not in each),
        ),
    )


def _text_lengths(manifest: Manifest) -> ProgramOptions:
    return ProgramOptions(seq_lens=tuple(bucket_lengths(text_programs(manifest))))


def _both_gate_inputs(pipeline: Any) -> Iterator[tuple[str, Any]]:
    from edgeformer.data.labelled import spread

    yield from _gate_inputs(pipeline)
    yield from ((shorten(text), {"text": text}) for text in spread(sentences(), GATE_IMAGES))


IMAGE_TEXT = replace(
    EMBEDDING,
    name="image-text",
    noun="comparer of images and texts",
    takes="image-text",
    spec=_image_text,
    evaluation=CLASSIFICATION.evaluation,
    aliases=("zeroshotimageclassification", "clip", "siglip", "imagetextembedding"),
    beside_texts=True,
    scores="edgeformer.models.adapted_pairs:pair_scores",
    program_options=_text_lengths,
    calibrate=None,
    sample_inputs=None,
    gate_inputs=_both_gate_inputs,
    metric=ACCURACY,
    checks={"tokenizer": "edgeformer.doctor.check_task:check_encoding"},
)
"""Of a model with a tower for images and one for texts: labels for a photo, photos for a text."""
