"""Objects and segments are those of transformers' own pipelines, from a photo to boxes and masks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers.image_transforms import get_size_with_aspect_ratio
from transformers.models.yolos.image_processing_pil_yolos import get_size_with_aspect_ratio_yolos

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer.checkpoints.source_index import TorchEngine
from edgeformer.convert.agreement import compare_objects, compare_pixels
from edgeformer.convert.convert import convert
from edgeformer.convert.options import ConvertOptions
from edgeformer.models.adapted_images import read_image_processor
from edgeformer.models.family import ProgramOptions
from edgeformer.tasks.image import read_detection
from edgeformer.tasks.task import TASKS
from edgeformer_runtime import load
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import ProgramSpec
from edgeformer_runtime.bundle.signature import SignatureState
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines import open_program_pipeline
from edgeformer_runtime.pipelines.results import Statistics
from edgeformer_runtime.pipelines.vision import SegmentationResult, segment
from edgeformer_runtime.preprocess.image import ImageEncoder
from edgeformer_runtime.tasks.vision import ObjectDetection, SemanticSegmentation
from edgeformer_runtime.verify.verify import verify
from tests.golden import tiny_manifests as tiny
from tools.families import save

SIZES = ((90, 123), (150, 60), (64, 64))
"""Rows and columns: landscape, a portrait whose long side bounds it, and a square that fills the program's input."""
LONGEST = 64
NAMES = {0: "N/A", 1: "cat", 2: "dog", 3: "N/A", 4: "car"}


def photos() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    small = [generator.integers(0, 256, (rows // 3, columns // 3, 3), dtype=np.uint8) for rows, columns in SIZES]
    return [Image.fromarray(each).resize(size[::-1], 3) for each, size in zip(small, SIZES, strict=True)]


def detector(name: str, folder: Path) -> Path:
    """A tiny random one, of labels two of which have one name."""
    save(name, folder)
    raw = json.loads((folder / "config.json").read_text())
    raw |= {"id2label": NAMES, "label2id": {label: number for number, label in NAMES.items()}}
    (folder / "config.json").write_text(json.dumps(raw))
    return folder


def pipeline_of(folder: Path, out: Path) -> Any:
    """The pipeline of a bundle of the checkpoint, in torch."""
    checkpoint = open_checkpoint(folder)
    module, _ = load_module(checkpoint, KERNELS["dense"])
    (program,) = checkpoint.programs(module, ProgramOptions())
    spec = TASKS[checkpoint.task].spec(checkpoint, (program,), ProgramOptions())
    programs = (ProgramSpec("image", "model.onnx", "main", program.inputs, program.outputs),)
    manifest = replace(
        tiny.image(),
        task=checkpoint.task,
        programs=programs,
        preprocessing=spec.preprocessing,
        postprocessing=spec.postprocessing,
    )
    return open_program_pipeline(Bundle(out, manifest, SignatureState(False, None)), TorchEngine((program,)))


def public_objects(folder: Path) -> Any:
    """transformers' own pipeline, whose images are padded as a bundle's are."""
    public: Any = transformers.pipeline("object-detection", str(folder))
    public.image_processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    public.image_processor.pad_size = {"height": LONGEST, "width": LONGEST}
    return public


def check_objects(pipeline: Any, public: Any) -> None:
    for photo in photos():
        expected = sorted(public(photo, threshold=0.1), key=lambda each: -each["score"])
        found = pipeline(photo, threshold=0.1).objects
        assert len(found) == len(expected) > 0
        assert [each.label for each in found] == [each["label"] for each in expected]
        assert [each.score for each in found] == pytest.approx([each["score"] for each in expected], abs=1e-4)
        for one, other in zip(found, expected, strict=True):
            assert np.allclose(np.trunc(one.box), [*other["box"].values()], atol=1.001)  # theirs are cut to integers


@pytest.mark.parametrize("name", ["detr", "yolos", "conditional_detr", "table-transformer"])
def test_objects_are_those_of_transformers_pipeline(name: str, tmp_path: Path) -> None:
    folder = detector(name, tmp_path / name)
    check_objects(pipeline_of(folder, tmp_path), public_objects(folder))


@pytest.mark.slow
def test_a_detectors_bundle_answers_as_transformers_pipeline(tmp_path: Path) -> None:
    folder = detector("detr", tmp_path / "detr")
    # Its decoder begins with products of constants, which int8 would turn into NaN.
    rows = convert(ConvertOptions(str(folder), tmp_path / "out", ("litert",), ("fp32", "dynamic-int8"))).bundles
    assert [row.problems for row in rows] == [(), ()]
    assert json.loads((rows[0].path / "manifest.json").read_text())["requires"]["android_api"] is None
    with load(rows[0].path) as pipeline:
        check_objects(pipeline, public_objects(folder))
    with Bundle.open(rows[0].path) as bundle:
        assert verify(bundle).ok


def test_masks_are_those_of_transformers_pipeline(tmp_path: Path) -> None:
    folder = tmp_path / "segformer"
    sizes = {"num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1], "hidden_sizes": [8, 16]}
    sizes |= {"patch_sizes": [7, 3], "strides": [4, 2], "num_attention_heads": [1, 2], "mlp_ratios": [2, 2]}
    torch.manual_seed(0)
    config = transformers.SegformerConfig(**sizes, decoder_hidden_size=16, num_labels=5)
    model = transformers.SegformerForSemanticSegmentation(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 1.5 * parameter[0].numel() ** -0.5)
    model.save_pretrained(folder)
    transformers.SegformerImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)
    pipeline = pipeline_of(folder, tmp_path)
    public: Any = transformers.pipeline("image-segmentation", str(folder))
    public.image_processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    for photo in photos():
        expected, found = public(photo), pipeline(photo).segments
        assert [each.label for each in found] == [each["label"] for each in expected] and len(found) > 1
        for one, other in zip(found, expected, strict=True):
            mask = np.asarray(other["mask"]) > 0
            assert one.share == pytest.approx(mask.mean(), abs=1e-3)
            assert (one.mask != mask).mean() < 1e-3  # where two labels are equal to the last digit


def test_every_pixel_has_the_label_of_the_largest_interpolated_logit() -> None:
    logits = torch.randn(7, 9, 5, generator=torch.Generator().manual_seed(0))
    logits[2, 3:, :3] += 4  # where one label is the best all around
    for size in ((61, 40), (3, 2), (5, 9)):
        resized = torch.nn.functional.interpolate(logits[None], size[::-1], mode="bilinear", align_corners=False)
        assert (segment(logits.numpy(), size) == resized[0].argmax(0).numpy()).mean() > 0.999


def test_run_lengths_are_cocos() -> None:
    numbers = np.array([[1, 0, 1], [1, 1, 0]], np.uint16)
    result = SegmentationResult(numbers, ("sky", "road"))
    sky, road = result.to_json()["segments"]
    assert sky == {"label": "sky", "share": pytest.approx(1 / 3), "mask": {"size": [2, 3], "counts": [2, 1, 2, 1]}}
    assert road["mask"]["counts"] == [0, 2, 1, 2, 1]
    assert [each.label for each in result.top(1).segments] == ["road"]
    header, body = replace(result, statistics=Statistics(1, 2, 3, 4)).to_frame()
    again = SegmentationResult.from_frame(header, body, SemanticSegmentation(("sky", "road")))
    assert again.expected_json() == result.expected_json()
    with pytest.raises(ValueError, match="not the manifest's"):
        SegmentationResult.from_frame(header, body, SemanticSegmentation(("sky",)))


@pytest.mark.parametrize("multiple", [1, 16])
def test_photos_are_resized_to_the_sides_that_transformers_takes(multiple: int) -> None:
    public: Any = get_size_with_aspect_ratio if multiple == 1 else get_size_with_aspect_ratio_yolos
    spec = replace(tiny.IMAGE_SPEC, height=1333, width=1333, resize_short_side=800, crop="pad", resize_long_side=1333)
    encode = ImageEncoder(replace(spec, multiple_of=multiple))
    sides = np.random.default_rng(0).integers(20, 5000, (300, 2)).tolist()
    for width, height in [*sides, [800, 1200], [1333, 800], [800, 800], [640, 480], [37, 2000]]:
        if min(public((height, width), 800, 1333)) > 0:
            assert encode._fitted(width, height)[::-1] == tuple(public((height, width), 800, 1333))
    with pytest.raises(InputError, match="an image of 3 x 40000 pixels is too narrow"):
        encode._fitted(3, 40_000)


DETR = {
    "image_processor_type": "DetrImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 48, "longest_edge": 64},
    "resample": 2,
    "do_pad": True,
}


def test_processors_that_keep_the_aspect_ratio_are_read(tmp_path: Path) -> None:
    def read(**changes: object) -> tuple[object, ...]:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({**DETR, **changes}))
        found, _ = read_image_processor(tmp_path)
        return found.height, found.width, found.resize_short_side, found.resize_long_side, found.multiple_of, found.crop

    assert read() == (64, 64, 48, 64, 1, "pad")
    assert read(pad_size={"height": 64, "width": 80}) == (64, 80, 48, 64, 1, "pad")
    yolos = {"image_processor_type": "YolosImageProcessor", "size": {"shortest_edge": 48, "longest_edge": 70}}
    assert read(**yolos) == (64, 64, 48, 70, 16, "pad")
    assert read(size=48, max_size=64) == (64, 64, 48, 64, 1, "pad")
    assert read(size={"height": 48, "width": 48})[-1] == "squash"
    for changes, field in (
        ({"size": {"shortest_edge": 800, "longest_edge": 2049}}, "size"),
        ({"pad_size": {"height": 48, "width": 64}}, "pad_size"),
        ({"size": {"max_height": 48, "max_width": 64}}, "size"),
    ):
        with pytest.raises(InputError, match=f"^preprocessor_config.json: {field} is "):
            read(**changes)


@pytest.mark.parametrize(("name", "width"), [("ConditionalDetr", 5), ("RTDetr", 5), ("Detr", 6), ("Yolos", 6)])
def test_what_a_processor_makes_of_outputs_is_tried(name: str, width: int, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": f"{name}ImageProcessor"}))
    found = read_detection(tmp_path, tuple(NAMES.values()), 30, width)
    most = {"ConditionalDetr": 100, "RTDetr": 30}.get(name)
    assert found == ObjectDetection(tuple(NAMES.values()), "softmax" if width == 6 else "sigmoid", most=most)
    with pytest.raises(InputError, match="otherwise than a bundle"):
        read_detection(tmp_path, tuple(NAMES.values()), 30, 9)


def test_agreement_counts_places_that_are_objects_and_pixels() -> None:
    reference: Any = SimpleNamespace(sample="a", label=None)
    head = ObjectDetection(("cat", "dog"), "softmax")
    sure, none = [9.0, 0.0, 0.0], [0.0, 0.0, 9.0]
    given, other = (np.array([*first, *none, *[0.5] * 8]) for first in (sure, [0.0, 9.0, 0.0]))
    assert compare_objects([(reference, given, given)], 0, head).to_json()["lost"] == 0
    found = compare_objects([(reference, other, given)], 0, head)
    assert (found.n, found.lost, found.top1) == (1, 1, 0.0)
    pixels = np.array([[9.0, 9.0], [0.0, 0.0]])
    found = compare_pixels([(reference, pixels[::-1].ravel(), pixels.ravel())], 0, SemanticSegmentation(("a", "b")))
    assert (found.n, found.lost) == (2, 2)
