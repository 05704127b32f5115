"""CTranslate2's model files: the format, its quantized tensors, Whispers in it, and files that must be refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_factory import save_whisper
from ctranslate2_factory import save_ctranslate2, variables_of, write_model
from safetensors.torch import load_file

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer.checkpoints.ctranslate2 import describe, is_ctranslate2, read_contents, read_tensors, read_variables
from edgeformer.checkpoints.weights import load_weights
from edgeformer_runtime.errors import InputError


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_whisper(tmp_path_factory.mktemp("public"), multilingual=False, max_source_positions=100)


@pytest.fixture(scope="module")
def folder(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_ctranslate2(source, tmp_path_factory.mktemp("ctranslate2") / "float16")


def small_file(path: Path, **changes: Any) -> Path:
    variables = {
        "a": torch.tensor([[1.5, -2.0], [0.25, 3.0]]),
        "b": torch.tensor(7, dtype=torch.int32),
        "c": torch.arange(3, dtype=torch.float16),
        "d": torch.ones(2, 1, dtype=torch.bfloat16),
        "e": torch.zeros(0, 4),
    }
    write_model(path, variables, {"again": "a"}, **changes)
    return path


def test_reads_the_format(tmp_path: Path) -> None:
    path = small_file(tmp_path / "model.bin", specification="OtherSpec", revision=9)
    contents = read_contents(path)
    assert (contents.specification, contents.revision, contents.aliases) == ("OtherSpec", 9, {"again": "a"})
    assert {name: variable.shape for name, variable in contents.variables.items()} == {
        "a": (2, 2),
        "b": (),
        "c": (3,),
        "d": (2, 1),
        "e": (0, 4),
    }
    read = read_variables(path, contents)
    assert torch.equal(read["a"], torch.tensor([[1.5, -2.0], [0.25, 3.0]]))
    assert read["again"] is read["a"]
    assert read["b"].item() == 7
    assert read["c"].dtype == torch.float16
    assert read["d"].dtype == torch.bfloat16
    assert read["e"].shape == (0, 4)


def test_tells_itself_from_pickles(tmp_path: Path) -> None:
    assert is_ctranslate2(small_file(tmp_path / "model.bin"))
    torch.save({"a": torch.ones(2)}, tmp_path / "zip.bin")
    torch.save({"a": torch.ones(2)}, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    (tmp_path / "empty.bin").write_bytes(b"")
    assert not any(is_ctranslate2(tmp_path / f"{name}.bin") for name in ("zip", "old", "empty"))
    assert torch.equal(load_weights((tmp_path / "zip.bin",))["a"], torch.ones(2))


def test_every_cut_is_refused(tmp_path: Path) -> None:
    whole = small_file(tmp_path / "model.bin").read_bytes()
    cut = tmp_path / "cut.bin"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(InputError, match="corrupted or cut short") as caught:
            read_contents(cut)
        assert "\n" not in str(caught.value)
    cut.write_bytes(whole + b"\0")
    with pytest.raises(InputError, match="behind its end"):
        read_contents(cut)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"\x02\x02\x00\x00\x00\x02\x00\x00\x00", b"\x02\x02\x00\x00\x00\xff\xff\xff\xff", "instead of"),
        (b"\x02\x02\x00\x00\x00\x02\x00\x00\x00", b"\xff\x02\x00\x00\x00\x02\x00\x00\x00", "255 dimensions"),
        (b"\x02\x00\x00\x00\x00\x10\x00\x00\x00", b"\x02\x00\x00\x00\x63\x10\x00\x00\x00", "type 99|instead of"),
        (b"\x02\x00b\x00", b"\x02\x00a\x00", "a twice"),
        (b"\x02\x00b\x00", b"\x02\x00\xff\x00", "corrupted"),
        (b"again\x00\x02\x00a\x00", b"again\x00\x02\x00z\x00", "there is no z"),
        (b"\x06\x00\x00\x00", b"\x05\x00\x00\x00", "version 6, found 5"),
    ],
)
def test_corrupted_bytes_are_refused(tmp_path: Path, old: bytes, new: bytes, message: str) -> None:
    path = small_file(tmp_path / "model.bin")
    whole = path.read_bytes()
    assert old in whole
    path.write_bytes(whole.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        read_contents(path)


@pytest.mark.parametrize("kind", ["float16", "int8", "int16"])
def test_a_whisper_has_the_tensors_it_was_made_of(source: Path, tmp_path: Path, kind: str) -> None:
    folder = save_ctranslate2(source, tmp_path / kind, kind=kind)
    found = open_checkpoint(str(folder))
    public = open_checkpoint(str(source))
    assert found.config == public.config
    assert found.speech == public.speech
    assert found.tokenizer_json == public.tokenizer_json
    assert found.source.id == f"local:{kind}"
    ours, report = load_module(found, KERNELS["dense"])
    theirs, _ = load_module(public, KERNELS["dense"])
    assert report.unused == ()
    for (name, tensor), expected in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        # Half a step of the largest value; that of int16 may be a neighbour's in the same fused projection.
        steps = {"float16": 2**11, "int8": 2 * 127, "int16": 2**10}[kind]
        largest = expected.abs().max().item()
        assert (tensor - expected).abs().max().item() <= 1.01 * largest / steps, name


def test_a_multilingual_whisper_is_known_by_its_vocabulary(tmp_path: Path) -> None:
    """CTranslate2 itself has no other sign of it; the languages are then those of the tokenizer."""
    source = save_whisper(tmp_path / "public", vocab_size=51865, max_source_positions=100)
    folder = save_ctranslate2(source, tmp_path / "ctranslate2")
    (folder / "preprocessor_config.json").unlink()
    found, public = open_checkpoint(str(folder)).speech, open_checkpoint(str(source)).speech
    assert found is not None
    assert found.tokens.languages.keys() == {"en", "de", "fr"}
    assert found == public


def test_the_layout_is_that_of_ctranslate2s_converter(assets: Path, folder: Path) -> None:
    """139 tensors of these shapes are what the converter makes of tiny.en."""
    state = load_file(assets / "whisper-tiny.en" / "model.safetensors")
    variables = variables_of({name: tensor.float() for name, tensor in state.items()}, 6, "float16")
    assert len([name for name, tensor in variables.items() if tensor.dim()]) == 139
    assert variables["decoder/layer_0/attention/linear_1/weight"].shape == (768, 384)
    assert variables["encoder/layer_3/self_attention/linear_0/bias"].shape == (1152,)
    assert {"model.encoder.conv1.weight", "proj_out.weight"} <= read_tensors(folder / "model.bin").keys()


def test_a_bias_of_keys_changes_nothing_and_is_left_out(folder: Path) -> None:
    names = read_tensors(folder / "model.bin").keys()
    assert "model.encoder.layers.0.self_attn.k_proj.weight" in names
    assert not any(name.endswith("k_proj.bias") for name in names)
    assert not any("qkv" in name or "kv." in name for name in names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"specification": "TransformerSpec"}, "holds a TransformerSpec of revision 3: expected a WhisperSpec"),
        ({"revision": 2}, "revision 2"),
        ({"variables": {"decoder/activation": torch.tensor(0, dtype=torch.int8)}}, "decoder/activation must be 3"),
        ({"variables": {"decoder/sliding_window": torch.tensor(9, dtype=torch.int32)}}, "unknown settings"),
        ({"variables": {"encoder/num_heads": None}}, "holds no encoder/num_heads"),
        ({"variables": {"encoder/conv1/weight": None}}, "holds no encoder/conv1/weight"),
    ],
)
def test_other_models_are_refused(source: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    variables: dict[str, Any] = variables_of(load_file(source / "model.safetensors"), 2, "float16")
    variables |= change.get("variables", {})
    kept = {name: tensor for name, tensor in variables.items() if tensor is not None}
    names = {name: value for name, value in change.items() if name != "variables"}
    write_model(tmp_path / "model.bin", kept, {}, **names)
    with pytest.raises(InputError, match=message):
        describe(tmp_path, {})


def test_a_quantized_tensor_without_its_scale_is_refused(source: Path, tmp_path: Path) -> None:
    variables = variables_of(load_file(source / "model.safetensors"), 2, "int8")
    name = "encoder/layer_0/ffn/linear_0/weight"
    scale = variables.pop(f"{name}_scale")
    write_model(tmp_path / "model.bin", variables, {})
    with pytest.raises(InputError, match="has no scale"):
        read_tensors(tmp_path / "model.bin")
    write_model(tmp_path / "model.bin", {**variables, f"{name}_scale": scale[1:]}, {})
    with pytest.raises(InputError, match="a scale for each"):
        read_tensors(tmp_path / "model.bin")
