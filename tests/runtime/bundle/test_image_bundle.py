"""Vision bundles: the manifest, hostile variants of it, vectors, verification."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_image_bundle import SPEC, TinyImageEngine, manifest, seal

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import MANIFEST_NAME, FileEntry, parse
from edgeformer_runtime.bundle.vectors import longest_case, read_vectors
from edgeformer_runtime.errors import BundleError
from edgeformer_runtime.verify.verify import verify

CASES = Path("vectors/cases.json")


def test_the_manifest_is_read_as_it_was_written(tiny_image: Path) -> None:
    text = (tiny_image / MANIFEST_NAME).read_text(encoding="utf-8")
    found = parse(text)
    assert found.preprocessing == SPEC
    assert found.to_json() == text
    document = json.loads(text)
    document["preprocessing"]["mean"] = [0, 0, 0]  # other writers' zero
    (spec,) = {parse(json.dumps(document)).preprocessing}
    assert repr(spec.mean) == "(0.0, 0.0, 0.0)"


def test_photos_are_no_part_of_the_model(tiny_image: Path) -> None:
    with Bundle.open(tiny_image) as bundle:
        assert bundle.model_size_bytes == 256
        assert longest_case(bundle).program == "image"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda m: m.update(task="text-classification"), "preprocessing.kind: expected 'text' for text-classification"),
        (lambda m: m["preprocessing"].update(kind="text"), "preprocessing: unknown key"),
        (lambda m: m["preprocessing"].update(tokenizer=None), "preprocessing: unknown key 'tokenizer'"),
        (lambda m: m["preprocessing"].pop("std"), "preprocessing: the key 'std' is missing"),
        (lambda m: m["preprocessing"].update(height=0), "preprocessing.height: minimum is 1"),
        (lambda m: m["preprocessing"].update(height=1 << 20), "preprocessing.height: maximum is 4096"),
        (lambda m: m["preprocessing"].update(height=16.0), "preprocessing.height: expected int, found 16.0"),
        (lambda m: m["preprocessing"].update(height=17), "float32 of shape (1, 3, 17, 24)"),
        (lambda m: m["preprocessing"].update(resize_short_side=23), "width <= resize_short_side, found 16, 24 and 23"),
        (lambda m: m["preprocessing"].update(resize_short_side=1 << 30), "resize_short_side: maximum is 8192"),
        (lambda m: m["preprocessing"].update(interpolation="magic"), "expected one of bicubic, bilinear"),
        (lambda m: m["preprocessing"].update(crop="top"), "crop: expected one of center, center-floor, squash"),
        (lambda m: m["preprocessing"].update(channels="BGR"), "preprocessing.channels: expected 'RGB'"),
        (lambda m: m["preprocessing"].update(layout="NHWC"), "preprocessing.layout: expected 'NCHW'"),
        (lambda m: m["preprocessing"].update(mean=[0.5]), "preprocessing.mean: "),
        (lambda m: m["preprocessing"].update(mean=[0.5, 0.5, 1e30]), "preprocessing.mean[2]: maximum is 1000"),
        (lambda m: m["preprocessing"].update(std=[0.5, 0, 0.5]), "preprocessing.std[1]: minimum is 0.0001"),
        (lambda m: m["preprocessing"].update(std=[0.5, 1e-300, 0.5]), "preprocessing.std[1]: minimum is 0.0001"),
        (lambda m: m["preprocessing"].update(std=[0.5, True, 0.5]), "preprocessing.std[1]: expected number"),
        (lambda m: m["programs"][0].update(name="picture"), "images have one program 'image'"),
        (lambda m: m["programs"].append(m["programs"][0] | {"name": "image2"}), "images have one program 'image'"),
        (lambda m: m["programs"][0]["inputs"][0].update(name="input_ids"), "one input 'pixels'"),
        (lambda m: m["programs"][0]["inputs"][0].update(dtype="int32"), "one input 'pixels'"),
        (lambda m: m["programs"][0]["inputs"][0].update(shape=[1, 16, 24, 3]), "float32 of shape (1, 3, 16, 24)"),
        (lambda m: m["programs"][0]["inputs"].append({"name": "x", "dtype": "int32", "shape": [1]}), "one input"),
        (lambda m: m["programs"][0]["outputs"][0].update(shape=[1, 4]), "one float32 output of shape (1, 3)"),
    ],
)
def test_corrupted_manifests(tiny_image: Path, change: Callable[[dict], object], problem: str) -> None:
    document = json.loads((tiny_image / MANIFEST_NAME).read_text(encoding="utf-8"))
    change(document)
    (tiny_image / MANIFEST_NAME).write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(BundleError) as caught:
        Bundle.open(tiny_image)
    message = str(caught.value)
    assert message.startswith("manifest.json: ") and "\n" not in message
    assert problem in message


def test_a_spec_that_contradicts_itself_is_not_written() -> None:
    files = {"model.bin": FileEntry("0" * 64, 1)}
    with pytest.raises(BundleError, match="images have one program"):
        replace(manifest(), preprocessing=replace(SPEC, height=12), files=files).to_json()


@pytest.mark.parametrize(
    ("stored", "problem"),
    [
        ({"image": "vectors/other.png"}, "input.image: 'vectors/other.png' is not among the manifest's files"),
        ({"image": "vectors/../manifest.png"}, "cases[0].input.image: expected text like"),
        ({"image": "/etc/passwd"}, "cases[0].input.image: expected text like"),
        ({"image": "vectors/a/b.png"}, "cases[0].input.image: expected text like"),
        ({"image": "vectors/noise.png\n"}, "input.image: "),
        ({"image": "model.bin"}, "cases[0].input.image: expected text like"),
        ({"image": ["vectors/noise.png"]}, "cases[0].input.image: expected string"),
        ({"image": "vectors/noise.png", "text": "x"}, "expected image, found image and text"),
        ({"text": "x"}, "expected image, found text"),
        ({}, "cases[0].input: minProperties"),
    ],
)
def test_corrupted_cases(tiny_image: Path, stored: dict, problem: str) -> None:
    document = json.loads((tiny_image / CASES).read_text(encoding="utf-8"))
    document["cases"][0]["input"] = stored
    (tiny_image / CASES).write_text(json.dumps(document), encoding="utf-8")
    seal(tiny_image, manifest())
    with Bundle.open(tiny_image) as bundle, pytest.raises(BundleError) as caught:
        read_vectors(bundle)
    assert problem in str(caught.value) and "\n" not in str(caught.value)


def test_verification(tiny_image: Path) -> None:
    with Bundle.open(tiny_image) as bundle:
        outcome = verify(bundle, TinyImageEngine())
    assert outcome.ok
    assert [stage.name for stage in outcome.stages] == ["preprocess", "image", "answer"]
    assert [stage.max_abs for stage in outcome.stages] == [0, 0, 0]
    assert outcome.stages[0].tolerance == pytest.approx(2.01 / 255 / 0.224)


def altered(folder: Path, levels: int) -> Path:
    """The bundle with a photo that differs in every pixel by some levels."""
    path = folder / "vectors" / "ramp.png"
    pixels = np.asarray(Image.open(path))
    assert pixels.max() + levels <= 255
    Image.fromarray(pixels + np.uint8(levels)).save(path)
    seal(folder, manifest())
    return folder


@pytest.mark.parametrize(("levels", "ok"), [(2, True), (4, False)])
def test_pixels_have_a_small_tolerance(tiny_image: Path, levels: int, ok: bool) -> None:
    with Bundle.open(altered(tiny_image, levels)) as bundle:
        stage = verify(bundle, TinyImageEngine()).stages[0]
    assert stage.ok is ok
    assert stage.max_abs == pytest.approx(levels / 255 / 0.224, rel=1e-3)


def test_another_filter_diverges_at_the_preprocessing(tiny_image: Path) -> None:
    seal(tiny_image, replace(manifest(), preprocessing=replace(SPEC, interpolation="bilinear")))
    with Bundle.open(tiny_image) as bundle:
        assert verify(bundle, TinyImageEngine()).first_diverging == "preprocess"


def test_a_corrupted_photo_is_named(tiny_image: Path) -> None:
    path = tiny_image / "vectors" / "noise.png"
    path.write_bytes(path.read_bytes()[:500])
    seal(tiny_image, manifest())
    with Bundle.open(tiny_image) as bundle, pytest.raises(BundleError) as caught:
        verify(bundle, TinyImageEngine())
    assert str(caught.value).startswith("vectors/cases.json: the input {'image': 'vectors/noise.png'} cannot be used: ")
    assert "is a corrupted image" in str(caught.value)


def test_every_property_of_a_case_is_checked_against_its_kind() -> None:
    from importlib import resources

    from edgeformer_runtime.tasks.task import TASKS

    schema = json.loads(resources.files("edgeformer_runtime").joinpath("cases.schema.json").read_text())
    keys = set(schema["properties"]["cases"]["items"]["properties"]["input"]["properties"])
    assert keys == {key for task in TASKS.values() for form in task.takes.stored_forms for key in form}
