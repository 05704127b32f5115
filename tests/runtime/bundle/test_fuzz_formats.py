"""Each reader by itself on drawn input: only this project's errors come out."""

from __future__ import annotations

import copy
import io
import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features
from tiny_bundle import SEQ_LENS, manifest, word_piece
from tiny_image_bundle import SPEC
from tiny_speech_bundle import HEAD, RATE, SOUND
from tiny_speech_bundle import manifest as speech_manifest

from edgeformer_runtime.bundle import archive, strict_json
from edgeformer_runtime.bundle.manifest import Manifest, TextPreprocessing, parse
from edgeformer_runtime.bundle.signature import check
from edgeformer_runtime.decoding.tokenizer import SpeechTokenizer
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.preprocess.audio import open_audio
from edgeformer_runtime.preprocess.image import ImageEncoder
from edgeformer_runtime.preprocess.log_mel import mel_filter_bank, read_mel_filters, write_mel_filters
from edgeformer_runtime.preprocess.text import TextEncoder
from tests.golden import tiny_manifests as tiny

settings.register_profile(
    "fuzz",
    max_examples=100,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
fuzz = settings.get_profile("fuzz")

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


def one_line(error: Exception) -> None:
    message = str(error)
    assert message
    assert "\n" not in message


def mutated(data: bytes) -> st.SearchStrategy[bytes]:
    """Bytes with some of them replaced, inserted or removed."""
    change = st.tuples(st.integers(0, max(len(data) - 1, 0)), st.integers(0, 8), st.binary(max_size=8))

    def apply(changes: list[tuple[int, int, bytes]]) -> bytes:
        result = bytearray(data)
        for at, removed, inserted in changes:
            result[at : at + removed] = inserted
        return bytes(result)

    return st.lists(change, min_size=1, max_size=4).map(apply)


@fuzz
@given(st.binary(max_size=200) | st.text(alphabet='[]{}",:0123456789eE+-.\\ unaltruefasN', max_size=60).map(str.encode))
def test_json(data: bytes) -> None:
    try:
        value = strict_json.loads(data, "x.json", 100)
    except BundleError as error:
        one_line(error)
    else:
        assert strict_json.loads(strict_json.dumps(value).encode(), "x.json", 10_000) == value


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in children for place in places(child, (*path, key)))]


@pytest.mark.parametrize(
    "original", [manifest(), speech_manifest(), tiny.recording(bank=True)], ids=["text", "speech", "recording"]
)
@fuzz
@given(data=st.data())
def test_manifest(original: Manifest, data: st.DataObject) -> None:
    """Any value in any place."""
    document = strict_json.to_data(original)
    document = copy.deepcopy(json.loads(json.dumps(document)))
    *path, key = data.draw(st.sampled_from(places(document)[1:]))
    container = document
    for step in path:
        container = container[step]
    container[key] = data.draw(JSON)
    try:
        parsed = parse(json.dumps(document))
    except BundleError as error:
        one_line(error)
    else:
        assert parse(parsed.to_json()) == parsed


@fuzz
@given(st.text(max_size=30) | st.text(alphabet="ab./\\:0N\0é", max_size=12))
def test_names_stay_inside(name: str) -> None:
    try:
        strict_json.check_name(name)
    except BundleError as error:
        one_line(error)
    else:
        inside = Path("/bundle")
        assert (inside / name).resolve().is_relative_to(inside)


def stored_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("manifest.json", b"{}")
        file.writestr("vectors/a.bin", bytes(100))
    return buffer.getvalue()


@settings(fuzz, max_examples=300)
@given(mutated(stored_zip()) | st.binary(max_size=100).map(lambda tail: tail + stored_zip()[-22:]))
def test_zip(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            with archive.Reader(Path(file.name)) as reader:
                for name, size in reader.sizes.items():
                    assert len(reader.read(name, 1000)) == size
        except BundleError as error:
            one_line(error)


@fuzz
@given(mutated(word_piece().encode()))
def test_tokenizer_files(data: bytes) -> None:
    text = data.decode(errors="replace")
    try:
        encoder = TextEncoder(TextPreprocessing("t.json", 0, None), text, manifest().programs)
        encoded = encoder.encode("turn the lights off!")
        assert encoded.inputs["input_ids"].shape[1] in SEQ_LENS
    except (BundleError, InputError) as error:
        one_line(error)
    try:
        tokenizer = SpeechTokenizer(text, 5)
        tokenizer.tokens("hello")
        tokenizer.text(range(8))
    except (BundleError, InputError) as error:
        one_line(error)


@fuzz
@given(
    st.text(max_size=60) | st.tuples(st.text(max_size=20), st.text(max_size=20)) | st.lists(st.integers(), max_size=20)
)
def test_texts(raw: Any) -> None:
    encoder = TextEncoder(TextPreprocessing("t.json", 0, 12), word_piece(), manifest().programs)
    try:
        encoded = encoder.encode(raw)
    except InputError as error:
        one_line(error)
    else:
        assert encoded.inputs["input_ids"].max() < 12


FILTERS = write_mel_filters(mel_filter_bank(SOUND.n_mels, SOUND.n_fft, SOUND.sample_rate))


@settings(fuzz, max_examples=200)
@given(mutated(FILTERS) | mutated(FILTERS[:80]).map(lambda head: head + FILTERS[80:]))
def test_mel_filters(data: bytes) -> None:
    try:
        filters = read_mel_filters(data, SOUND)
    except BundleError as error:
        one_line(error)
    else:
        assert filters.shape == (SOUND.n_mels, SOUND.n_fft // 2 + 1)
        assert np.isfinite(filters).all()


def encoded_image(form: str) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    if form == "HEIC":
        pytest.importorskip("pillow_heif").from_pillow(Image.fromarray(pixels)).save(buffer)
    elif form == "AVIF" and not features.check("avif"):
        pytest.skip("a Pillow without AVIF")
    else:
        Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


HEAD_BYTES = {"HEIC": 600, "AVIF": 400}
"""Where a format's structure stands; 100 for those that are not named."""


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own remarks on corrupted tags
@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF", "HEIC"])
@fuzz
@given(data=st.data())
def test_images(form: str, data: st.DataObject) -> None:
    content = encoded_image(form)
    size = HEAD_BYTES.get(form, 100)
    head = mutated(content[:size]).map(lambda start: start + content[size:])
    try:
        encoded = ImageEncoder(SPEC)(data.draw(head | mutated(content)))
    except InputError as error:
        one_line(error)
    else:
        assert encoded.shape == (1, 3, SPEC.height, SPEC.width)


def encoded_audio(form: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.sin(np.arange(2000) / 5).astype(np.float32) / 2, 8000, format=form)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3"])
@fuzz
@given(data=st.data())
def test_recordings(form: str, data: st.DataObject) -> None:
    content = encoded_audio(form)
    head = mutated(content[:60]).map(lambda start: start + content[60:])
    try:
        with open_audio(data.draw(head | mutated(content)), RATE) as reader:
            samples = reader.read(100_000)
    except InputError as error:
        one_line(error)
    else:
        assert samples.dtype == np.float32
        assert np.isfinite(samples).all()


@fuzz
@given(st.binary(max_size=100), st.binary(max_size=70), st.binary(min_size=32, max_size=32))
def test_signatures(content: bytes, signature: bytes, key: bytes) -> None:
    """Nothing drawn is a signature, whatever the key; many keys are no point of the curve."""
    pytest.importorskip("cryptography")
    with pytest.raises(BundleError) as caught:
        check(content, signature, key)
    one_line(caught.value)


def test_the_speech_head_is_what_these_tests_think() -> None:
    assert parse(speech_manifest_with_files()).postprocessing == HEAD


def speech_manifest_with_files() -> str:
    data = speech_manifest().to_data()
    data["files"] = {
        name: {"sha256": "0" * 64, "size": 1} for name in ("model.bin", "tokenizer.json", SOUND.mel_filters)
    }
    return json.dumps(data)
