"""Core ML bundles from `convert`: every family and precision is gated, and what is wrong is named."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from checkpoint_factory import save_mobilebert
from safetensors.torch import load_file, save_file

from edgeformer.convert.bundle_writer import seal
from edgeformer.convert.convert import ConvertOptions, convert
from edgeformer.convert.result import Converted
from edgeformer.convert.target import verification_engine
from edgeformer_converters.mil.program import read_program
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.verify.verify import Verification, verify

pytestmark = [pytest.mark.coreml, pytest.mark.slow]
PRECISIONS = ("fp32", "fp16", "dynamic-int8", "palette6", "palette4", "int4")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_mobilebert(tmp_path_factory.mktemp("checkpoint"), num_hidden_layers=1)


@pytest.fixture(scope="module")
def converted(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Converted]:
    """One bundle per precision."""
    out = tmp_path_factory.mktemp("bundles")
    rows = convert(ConvertOptions(str(checkpoint), out, ("coreml",), PRECISIONS, seq_lens=(16,), min_ios=18))
    return {row.precision: row for row in rows}


def checked(folder: Path) -> Verification:
    """What the reference finds in a bundle."""
    with Bundle.open(folder) as bundle:
        return verify(bundle, verification_engine(bundle))


def test_every_precision_passes_its_gates(converted: dict[str, Converted]) -> None:
    for precision, row in converted.items():
        assert row.problems == ()
        with Bundle.open(row.path) as bundle:
            assert bundle.manifest.precision == precision
            assert (bundle.manifest.requires.ios, bundle.manifest.requires.macos) == ("18.0", "15.0")
            assert bundle.manifest.recipe.weights in {"float32", "float16", "int8", precision}


def test_the_verification_says_who_ran_it_and_what_that_leaves_open(converted: dict[str, Converted]) -> None:
    found = converted["fp16"].verification
    assert found.executed_by.startswith("mil-reference")
    assert "Neural Engine" in str(found.note)


def test_an_older_release_is_in_the_manifest(checkpoint: Path, tmp_path: Path) -> None:
    options = ConvertOptions(str(checkpoint), tmp_path, ("coreml",), ("palette6",), seq_lens=(16,), min_ios=16)
    (row,) = convert(options)
    assert row.ok
    with Bundle.open(row.path) as bundle:
        assert (bundle.manifest.requires.ios, bundle.manifest.requires.macos) == ("16.0", "13.0")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"targets": ("litert",), "min_ios": 17}, "--min-ios is for the target coreml, found litert"),
        ({"targets": ("coreml",), "min_ios": 12}, "unknown release iOS 12: expected one of 16, 17, 18"),
        ({"targets": ("coreml",), "min_ios": 16, "seq_lens": (16, 32)}, "give one --seq-len"),
        ({"targets": ("litert",), "precisions": ("palette6",)}, "litert has no precision 'palette6': expected one of"),
        ({"targets": ("onnx",), "precisions": ("palette6",)}, "onnx has no precision 'palette6'"),
        ({"targets": ("executorch",), "precisions": ("palette4",)}, "executorch has no precision 'palette4'"),
    ],
)
def test_what_cannot_be_is_refused(checkpoint: Path, tmp_path: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as caught:
        convert(ConvertOptions(str(checkpoint), tmp_path, **({"seq_lens": (16,)} | options)))  # type: ignore[arg-type]
    assert words in str(caught.value)


def test_what_is_beyond_half_stays_in_float32(tmp_path: Path) -> None:
    large = save_mobilebert(tmp_path / "large")
    weights = load_file(large / "model.safetensors")
    # Each weight fits float16. Without norms nothing shrinks what they make of each other.
    for name in ("output.dense.weight", "output.LayerNorm.weight"):
        weight = weights[f"mobilebert.encoder.layer.1.{name}"]
        weight *= 5e3 / weight.abs().max()
    save_file(weights, large / "model.safetensors", {"format": "pt"})
    options = ConvertOptions(str(large), tmp_path / "out", ("coreml",), ("fp32", "fp16"), seq_lens=(16,))
    fp32, fp16 = convert(options)
    assert fp32.ok
    assert fp16.ok
    with Bundle.open(fp16.path) as bundle:
        (function,) = read_program(bundle.path("model.mlpackage")).values()
        dtypes = Counter(each.dtype for operation in function.operations for each in operation.outputs)
        assert dtypes["FLOAT32"] > 4
        assert dtypes["FLOAT16"] > dtypes["FLOAT32"]


def corrupt(folder: Path, file: str, start: int) -> None:
    """Change 64 bytes."""
    path = folder / file
    content = bytearray(path.read_bytes())
    content[start : start + 64] = bytes(each ^ 0x3F for each in content[start : start + 64])
    path.write_bytes(content)


def _is_weight(file: Path, offset: int) -> bool:
    """Whether a byte is none of a weight's 64 bytes of metadata, which begin with a mark."""
    data = file.read_bytes()
    found = data.rfind(bytes.fromhex("efbeadde"), 0, offset + 1)
    return offset - found >= 64


def test_a_corrupted_weight_is_found(converted: dict[str, Converted], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(converted["fp16"].path, tmp_path / "copy"))
    file = "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin"
    size = (folder / file).stat().st_size
    # The last layers' weights, a byte in each stretch: the middle holds embeddings of tokens that no case has.
    offsets = [offset for offset in range(size * 3 // 4, size, 640) if _is_weight(folder / file, offset)]
    for offset in offsets:
        corrupt(folder, file, offset)
    with pytest.raises(BundleError, match=r"weight\.bin"):
        checked(folder)
    with Bundle.open(converted["fp16"].path) as bundle:
        manifest = bundle.manifest
    seal(folder, replace(manifest, files={}))
    found = checked(folder)
    assert found.first_diverging == "seq_16"


def test_a_dropped_operator_is_named(converted: dict[str, Converted], tmp_path: Path) -> None:
    from coremltools.proto import Model_pb2

    folder = Path(shutil.copytree(converted["fp32"].path, tmp_path / "copy"))
    with Bundle.open(folder) as bundle:
        manifest = bundle.manifest
    path = folder / "model.mlpackage/Data/com.apple.CoreML/model.mlmodel"
    specification = Model_pb2.Model.FromString(path.read_bytes())
    (block,) = specification.mlProgram.functions["main"].block_specializations.values()
    index = next(index for index, each in enumerate(block.operations) if each.type == "relu")
    name = block.operations[index].outputs[0].name
    del block.operations[index]
    path.write_bytes(specification.SerializeToString())
    seal(folder, replace(manifest, files={}))
    with pytest.raises(BundleError, match=f"'{name}', which nothing before it makes"):
        checked(folder)
