"""A vision model of nine numbers with its numpy reference, and bundles of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from tiny_bundle import manifest as text_manifest
from tiny_bundle import seal

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import Classification, Manifest, ProgramSpec, TensorSpec
from edgeformer_runtime.bundle.specs import Postprocessing
from edgeformer_runtime.bundle.vectors import Tolerances, write_vectors
from edgeformer_runtime.engines import Engine, Tensor
from edgeformer_runtime.pipelines import open_program_pipeline
from edgeformer_runtime.tasks.vision import ImagePreprocessing, ObjectDetection, SemanticSegmentation, image_inputs

LABELS = ("red", "green", "blue")
SPEC = ImagePreprocessing(
    height=16,
    width=24,
    resize_short_side=26,
    interpolation="bicubic",
    crop="center",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
WEIGHT = np.array([[2, -1, -1], [-1, 2, -1], [-1, -1, 2]], dtype=np.float32)  # (channels, labels)
SAMPLES = ({"image": "vectors/noise.png"}, {"image": "vectors/ramp.png"})


class TinyImageEngine:
    """The reference: the mean of each channel, times a matrix."""

    name = "numpy"
    executed_by = "numpy reference"
    not_covered: str | None = None

    def run(self, program: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        assert program == "image"
        return {"logits": inputs["pixels"].mean((2, 3)) @ WEIGHT}

    def close(self) -> None:
        pass


def manifest(model: str = "model.bin", target: str = "onnx") -> Manifest:
    """The tiny vision bundle's manifest, before its files are listed."""
    pixels = TensorSpec("pixels", "float32", (1, 3, SPEC.height, SPEC.width))
    logits = TensorSpec("logits", "float32", (1, len(LABELS)))
    return replace(
        text_manifest(target),
        name="tiny_image",
        family="tinyvit",
        task="image-classification",
        operators={"MatMul": 1, "ReduceMean": 1},
        programs=(ProgramSpec("image", model, "main", (pixels,), (logits,)),),
        preprocessing=SPEC,
        postprocessing=Classification(LABELS, "softmax"),
    )


def photos(folder: Path) -> None:
    """A photo of noise, and one of smooth ramps in each direction."""
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    y, x = np.mgrid[0:30, 0:50]
    ramp = np.stack([x * 5, y * 8, (x + y) * 3], axis=2).astype(np.uint8)
    Image.fromarray(ramp).save(folder / "ramp.png")


def complete(folder: Path, unsealed: Manifest, engine: Engine | None = None) -> Path:
    """Add photos and the reference's vectors to a folder that has the model, and seal it."""
    photos(folder / "vectors")
    seal(folder, unsealed)
    with Bundle.open(folder) as bundle:
        pipeline = open_program_pipeline(bundle, engine or TinyImageEngine())
        cases = [pipeline.record(sample) for sample in SAMPLES]
    write_vectors(folder, cases, Tolerances(output=1e-4, score=1e-4), unsealed)
    seal(folder, unsealed)
    return folder


def make_image_without_model(folder: Path) -> Path:
    """A valid bundle whose model file is no model."""
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(bytes(range(256)))
    return complete(folder, manifest())


class TinyPlacesEngine(TinyImageEngine):
    """Two places with boxes and labels that the first pixel decides, or a grid of logits: the pixels themselves."""

    def run(self, program: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        assert program == "image"
        if "rows" not in inputs:
            return {"logits": inputs["pixels"][:, :, ::4, ::4]}
        filled = np.array([inputs["columns"].sum(), inputs["rows"].sum()]) / SPEC.width
        first = np.append(inputs["pixels"][0, :, 0, 0], -9.0)
        boxes = [[0.5, 0.5, *filled], [0.25, 0.5, 0.5, 1.0]]
        return {"logits": np.float32([[first, -first]]), "boxes": np.float32([boxes])}


def make_places(folder: Path, task: str) -> Path:
    """A bundle that detects objects, or segments images, and whose model file is no model."""
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(bytes(range(256)))
    if task == "object-detection":
        spec = replace(SPEC, height=24, resize_short_side=18, crop="pad", resize_long_side=24, multiple_of=2)
        head: Postprocessing = ObjectDetection(LABELS, "softmax")
        shapes = {"logits": (1, 2, 4), "boxes": (1, 2, 4)}
    else:
        spec = replace(SPEC, width=16, resize_short_side=16, crop="squash")
        head = SemanticSegmentation(LABELS)
        shapes = {"logits": (1, 3, 4, 4)}
    outputs = tuple(TensorSpec(name, "float32", shape) for name, shape in shapes.items())
    program = ProgramSpec("image", "model.bin", "main", image_inputs(spec), outputs)
    unsealed = replace(manifest(), task=task, programs=(program,), preprocessing=spec, postprocessing=head)
    return complete(folder, unsealed, TinyPlacesEngine())


def make_image_onnx(folder: Path) -> Path:
    """The tiny vision model for ONNX Runtime."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    folder.mkdir(parents=True)
    (pixels,), (logits,) = manifest().programs[0].inputs, manifest().programs[0].outputs
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("MatMul", ["mean", "weight"], ["logits"]),
        ],
        "tiny_image",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, list(pixels.shape))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, list(logits.shape))],
        [numpy_helper.from_array(WEIGHT, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    save(model, str(folder / "model.onnx"))
    return complete(folder, manifest("model.onnx"))
