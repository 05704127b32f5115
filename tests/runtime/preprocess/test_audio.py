"""Reading audio: every format against libsndfile, resampling against soxr in one piece, and what is refused."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess import mp4_file
from edgeformer_runtime.preprocess.audio import BLOCK_FRAMES, MAX_CHANNELS, PcmStream, open_audio

RATE = 16000
FORMATS = [
    ("WAV", "PCM_U8", 2**-7),
    ("WAV", "PCM_16", 2**-15),
    ("WAV", "PCM_24", 2**-23),
    ("WAV", "PCM_32", 2**-23),
    ("WAV", "FLOAT", 0.0),
    ("WAV", "DOUBLE", 0.0),
    ("WAVEX", "PCM_16", 2**-15),
    ("WAV", "PCM_U8", 2**-7),
    ("FLAC", "PCM_16", 2**-15),
    ("FLAC", "PCM_24", 2**-23),
    ("OGG", "VORBIS", 0.15),
    ("OGG", "OPUS", 0.15),
    ("MP3", "MPEG_LAYER_III", 0.15),
]
"""Container, coding, and the largest error of a sample; lossy ones are compared by their largest deviation."""


def audio(count: int, seed: int = 0) -> np.ndarray:
    """Noise of low frequencies, within -0.9 to 0.9."""
    noise = np.cumsum(np.random.default_rng(seed).standard_normal(count + 64))
    smooth = np.convolve(noise - np.convolve(noise, np.ones(64) / 64, "same"), np.ones(8) / 8, "same")[:count]
    return (0.9 * smooth / max(np.abs(smooth).max(initial=0), 1e-9)).astype(np.float32)


def encoded(samples: np.ndarray, rate: int, container: str, coding: str) -> bytes:
    data = io.BytesIO()
    soundfile.write(data, samples, rate, format=container, subtype=coding)
    return data.getvalue()


def everything(raw: Any, rate: int = RATE, step: int = 1 << 40) -> np.ndarray:
    with open_audio(raw, rate) as reader:
        parts = [reader.read(step)]
        while len(parts[-1]) == step:
            parts.append(reader.read(step))
        assert len(reader.read(step)) == 0
    return np.concatenate(parts)


@pytest.mark.parametrize(("container", "coding", "error"), FORMATS)
def test_formats(container: str, coding: str, error: float, tmp_path: Path) -> None:
    rate = 48000 if coding == "OPUS" else RATE
    samples = audio(3 * rate + 77)
    data = encoded(samples, rate, container, coding)
    path = tmp_path / "audio"
    path.write_bytes(data)
    found = everything(data, rate)
    # One rounding: what mpg123 gives depends on how much is asked for at a time.
    exact = 2e-7 if container == "MP3" else 0.0
    np.testing.assert_allclose(everything(path, rate, step=5000), found, rtol=0, atol=exact)
    np.testing.assert_allclose(found, soundfile.read(io.BytesIO(data), dtype="float32")[0], rtol=0, atol=exact)
    assert len(found) == len(samples)
    assert np.abs(found - samples).max() <= error
    with open_audio(path, rate) as reader:
        assert reader.seconds == pytest.approx(len(samples) / rate)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
def test_resampling_by_block_equals_resampling_at_once(rate: int) -> None:
    samples = audio(BLOCK_FRAMES * 2 + 1234)
    expected = soxr.resample(samples, rate, RATE)
    for step in (1 << 40, 4097):
        found = everything((samples, rate), step=step)
        assert len(found) == len(expected)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_tone_survives_resampling() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(44100) / 44100)
    found = everything((tone, 44100))
    expected = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    np.testing.assert_allclose(found[500:-500], expected[500:-500], atol=1e-4)


def test_channels_are_averaged() -> None:
    left, right = audio(5000, 1), audio(5000, 2)
    stereo = np.stack([left, right], axis=1)
    np.testing.assert_allclose(everything(stereo), (left + right) / 2, atol=1e-7)
    np.testing.assert_allclose(everything(encoded(stereo, RATE, "WAV", "FLOAT")), (left + right) / 2, atol=1e-7)


@pytest.mark.parametrize("block", [100, 20_000])
def test_channels_that_cancel_out_are_not_averaged(block: int) -> None:
    voice, noise = audio(40_000, 1), audio(40_000, 2)
    found = everything(np.stack([voice, -0.98 * voice + 0.001 * noise], axis=1))
    np.testing.assert_array_equal(found, voice)
    # One silent channel, noise in each, and digital silence are averaged as ever.
    for left, right in ((voice, 0 * voice), (voice, noise), (0 * voice, 0 * voice), (voice, -0.5 * voice)):
        np.testing.assert_allclose(everything(np.stack([left, right], axis=1)), (left + right) / 2, atol=1e-7)
    late = np.concatenate([np.zeros((block, 2), np.float32), np.stack([voice, -voice], axis=1)])
    assert np.abs(everything(late)[block + 16384 :] - voice[16384:]).max() == 0


def recorded(samples: np.ndarray, container: str, codec: str, rate: int, **metadata: str) -> bytes:
    """A file as FFmpeg writes it."""
    av = pytest.importorskip("av", reason="the extra media is not installed")
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        out.metadata.update(metadata)
        track = out.add_stream(codec, rate=rate, layout="mono")
        context = track.codec_context
        resampler = av.AudioResampler(context.format, "mono", rate, frame_size=context.frame_size or 1024)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        for part in (*resampler.resample(frame), *resampler.resample(None), None):
            out.mux(track.encode(part))
    return file.getvalue()


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("mp4", "aac", RATE),
        ("ipod", "alac", RATE),
        ("ipod", "aac", 48000),
        ("adts", "aac", RATE),
        ("webm", "libopus", 48000),
    ],
)
def test_recordings_of_phones_and_browsers(container: str, codec: str, rate: int, tmp_path: Path) -> None:
    times = np.arange(2 * RATE) / RATE
    chirp = (0.5 * np.sin(2 * np.pi * (200 * times + 300 * times**2))).astype(np.float32)
    path = tmp_path / "recording"
    path.write_bytes(recorded(chirp, container, codec, rate))
    for raw in (path, path.read_bytes()):
        found = everything(raw)
        assert len(chirp) <= len(found) <= len(chirp) + 2400  # a coder begins with silence, and fills its last frame
        offset = int(np.correlate(found, chirp, "valid").argmax())
        heard = found[offset + 1000 : offset + len(chirp) - 1000]
        assert np.corrcoef(heard, chirp[1000:-1000])[0, 1] > 0.99


def test_recordings_that_ffmpeg_cannot_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = recorded(audio(RATE), "mp4", "aac", RATE)
    for wrong in (data[:100], data[:4] + b"ftypmp42" + bytes(200), b"\x1aE\xdf\xa3" + bytes(200)):
        with pytest.raises(InputError, match="not an audio file, or corrupted: ") as caught:
            everything(wrong)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="has audio of ac3: expected aac, alac"):
        everything(recorded(audio(RATE), "matroska", "ac3", 48000))
    monkeypatch.setitem(sys.modules, "av.error", None)
    with pytest.raises(InputError, match=r"reading mp4 files needs the package .*edgeformer-runtime\[media\]"):
        everything(data)


def box(name: bytes, *content: bytes) -> bytes:
    """A box of an MP4 file."""
    inside = b"".join(content)
    return struct.pack(">I4s", 8 + len(inside), name) + inside


def numbers(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def nested(*boxes: bytes, within: str = "moov trak mdia minf stbl") -> bytes:
    """An MP4 file of boxes within others."""
    content = b"".join(boxes)
    for name in reversed(within.split()):
        content = box(name.encode(), content)
    return box(b"ftyp", b"isom", numbers(512)) + content + box(b"mdat", bytes(1000))


MANY = 1 << 24
SIZES = box(b"stsz", numbers(0, 1, MANY))  # so many frames of one byte


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (nested(SIZES), "states 16777216 frames, where at most 1084 are taken"),
        (nested(SIZES, within="moov trak udta tref"), "states 16777216 frames"),
        (nested(box(b"stz2", numbers(0, 16, MANY))), "states 16777216 frames"),
        (nested(box(b"free") + box(b"meta", numbers(0), box(b"hdlr"), SIZES)), "states 16777216 frames"),
        (nested(box(b"trun", numbers(0, MANY)), within="moof traf"), "states 16777216 frames"),
        (nested(box(b"trun", numbers(0, 900)), box(b"elst", numbers(0, 9999))), "states 8999100 frames in its edits"),
        (nested(box(b"stsd", numbers(0, 1), box(b"mp4a", bytes(28), SIZES))), "tables in its description of samples"),
        (nested(box(b"cmov"), within="moov"), "has compressed tables"),
        (nested(box(b"trak") * 33, within="moov"), "states 33 tracks, where at most 32 are taken"),
        (nested(box(b"sidx", numbers(0, 1, 1, 0, 0, 0xFFFF)), within="moov"), "states 65535 fragments, where at most"),
        (nested(box(b"sidx", numbers(1 << 24, 1, 1, 0, 0, 0, 0, 0xFFFF)), within=""), "states 65535 fragments"),
        (nested(struct.pack(">I4sQ", 1, b"moov", 36) + SIZES, within=""), "states 16777216 frames"),
    ],
)
def test_counts_of_mp4_tables_are_compared_before_ffmpeg_sees_them(
    file: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av.error", None)
    with pytest.raises(InputError, match=message):
        everything(file)


def test_boxes_of_an_mp4_are_counted_and_their_depth_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mp4_file, "MAX_BOXES", 1000)
    with pytest.raises(InputError, match="has more than 1000 boxes"):
        mp4_file.check_mp4(io.BytesIO(nested(box(b"free") * 1001)), "it")
    mp4_file.check_mp4(io.BytesIO(nested(SIZES, within="moov " * 20)), "it")  # FFmpeg gives up at ten
    mp4_file.check_mp4(io.BytesIO(b"\0\0\0\7ftyp" + SIZES), "it")  # it reads no further
    for short in (b"", b"\0\0\0\1moov", box(b"stsz"), box(b"sidx"), box(b"elst"), box(b"meta")):
        mp4_file.check_mp4(io.BytesIO(short), "it")


def test_titles_need_not_be_utf_8() -> None:
    data = recorded(audio(RATE), "mp4", "aac", RATE, title="a title")
    assert data.count(b"a title") == 1
    assert len(everything(data.replace(b"a title", b"Caf\xe9 \xff!"))) >= RATE


def test_a_track_of_a_coding_that_nobody_knows_is_refused() -> None:
    data = recorded(audio(RATE), "mp4", "aac", RATE)
    with pytest.raises(InputError, match="has audio of an unknown coding: expected aac, alac"):
        everything(data.replace(b"mp4a", b"mp4\xff").replace(b"esds", b"esdx"))


@pytest.mark.skipif(sys.platform == "win32", reason="the descriptor is looked at as POSIX has it")
def test_mpg123_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """Of each byte that it skips it would print a line: a megabyte of them in a service's log for one request."""
    data = encoded(audio(10 * RATE), RATE, "MP3", "MPEG_LAYER_III")
    damaged = b"\0\0\0\0".join(data[at : at + 300] for at in range(0, len(data), 300))
    everything(damaged)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32"])
def test_integers_scale_by_their_range(dtype: str) -> None:
    info = np.iinfo(dtype)
    middle = 0 if info.min < 0 else (info.max + 1) // 2
    found = everything(np.array([info.min, middle, info.max], dtype=dtype))
    np.testing.assert_allclose(found, [-1, 0, 1 - 2.0 ** (1 - info.bits)], atol=1e-7)


def test_every_kind_of_input_gives_the_same(tmp_path: Path) -> None:
    samples = audio(4000)
    data = encoded(samples, RATE, "WAV", "FLOAT")
    path = tmp_path / "täl.wav"
    path.write_bytes(data)
    kinds = [path, str(path), data, bytearray(data), memoryview(data), samples, samples[:, None], (samples, RATE)]
    kinds += [samples.astype(np.float64), samples.astype(">f4"), (samples, np.float64(RATE))]
    for raw in kinds:
        np.testing.assert_array_equal(everything(raw), samples)


def test_reading_in_any_step_gives_the_same() -> None:
    samples = audio(BLOCK_FRAMES + 500)
    for step in (1000, BLOCK_FRAMES, BLOCK_FRAMES + 1, len(samples)):
        np.testing.assert_array_equal(everything(samples, step=step), samples)


def test_what_is_read_is_the_callers_own() -> None:
    samples = audio(100)
    with open_audio(samples, RATE) as reader:
        reader.read(50)[:] = 7
        np.testing.assert_array_equal(reader.read(50), samples[50:])
    assert np.abs(samples).max() < 1


@pytest.mark.parametrize(
    ("container", "coding"),
    [
        ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("CAF", "ALAC_16"), ("W64", "PCM_24"), ("RF64", "PCM_16"),
        ("VOC", "PCM_16"),
        ("SVX", "PCM_16"), ("NIST", "PCM_16"), ("IRCAM", "PCM_16"), ("PAF", "PCM_16"), ("WAV", "ULAW"),
        ("WAV", "GSM610"),
        ("WAV", "IMA_ADPCM"), ("WAV", "MS_ADPCM"), ("WAV", "G721_32"), ("MP3", "MPEG_LAYER_II"),
    ],
)  # fmt: skip
def test_only_what_is_promised_is_decoded(container: str, coding: str) -> None:
    try:
        data = encoded(audio(4000), 8000, container, coding)
    except Exception as error:  # not every build of libsndfile writes all of them
        pytest.skip(str(error))
    with pytest.raises(InputError, match="expected wav") as caught:
        open_audio(data, RATE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rate", [RATE, 44100])
def test_no_samples_are_a_audio(rate: int) -> None:
    empty = np.empty(0, np.float32)
    for raw in ((empty, rate), encoded(empty, rate, "WAV", "PCM_16"), encoded(empty, rate, "WAVEX", "PCM_24")):
        assert len(everything(raw)) == 0
        with open_audio(raw, RATE) as reader:
            assert reader.seconds == 0


def test_clipped_and_overdriven_audio_is_taken_as_it_is() -> None:
    clipped = np.where(np.arange(4000) % 40 < 20, 1.0, -1.0)
    np.testing.assert_array_equal(everything(clipped), clipped)
    np.testing.assert_array_equal(everything(clipped * 32768), clipped * 32768)


def test_a_wav_of_unstated_length_is_read_to_its_end() -> None:
    data = bytearray(encoded(audio(1000), RATE, "WAV", "PCM_16"))
    place = data.index(b"data") + 4
    data[place : place + 4] = struct.pack("<I", 0xFFFFFFFF)
    assert len(everything(bytes(data))) == 1000


def test_a_recording_that_was_never_finished_is_not_silence() -> None:
    data = bytearray(encoded(audio(5000), RATE, "WAV", "PCM_16"))
    place = data.index(b"data") + 4
    data[place : place + 4] = bytes(4)
    with pytest.raises(InputError, match="states that it has no samples, found 10000 bytes"):
        open_audio(bytes(data), RATE)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize(("container", "coding"), [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16")])
def test_a_file_that_was_cut_short_is_refused(container: str, coding: str, share: float) -> None:
    data = encoded(audio(30000), RATE, container, coding)
    with pytest.raises(InputError, match=r"cut short|not an audio file"):
        everything(data[: int(len(data) * share)])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_values_that_are_no_audio_are_refused_with_their_place(value: float) -> None:
    samples = audio(BLOCK_FRAMES * 2)
    samples[BLOCK_FRAMES + 16] = value
    for raw in (samples, np.stack([samples, samples], axis=1), encoded(samples, RATE, "WAV", "FLOAT")):
        with pytest.raises(InputError, match=r"at sample 16400 \(1\.025 s\): expected finite"):
            everything(raw)


def wav(rate: int, channels: int) -> bytes:
    """A wav's header that claims a rate and channels, with one frame."""
    body = b"\0\0" * channels
    form = struct.pack("<HHIIHH", 1, channels, rate, min(rate * 2 * channels, 2**32 - 1), 2 * channels, 16)
    chunks = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not an audio file"),
        (b"hello " * 100, "not an audio file: expected wav, flac, ogg or mp3, or m4a"),
        (b"RIFF", "not an audio file"),
        (wav(RATE, 1)[:30], "not an audio file"),
        (wav(999, 1), "999 Hz: expected 1000 to 768000"),
        (wav(768_001, 1), "768001 Hz"),
        (wav(RATE, MAX_CHANNELS + 1), "65 channels: expected 1 to 64"),
        ("/no/such/audio.wav", "No such file"),
        ("/tmp", "directory"),
        ("bad\0name", "null"),
        (np.zeros((2, 16000), np.float32), "16000 channels"),
        (np.zeros((16, 0), np.float32), "0 channels"),
        (np.zeros((2, 3, 4), np.float32), r"found shape \(2, 3, 4\)"),
        (np.zeros(4, np.int64), "int64"),
        (np.zeros(4, bool), "bool"),
        (np.zeros(4, np.complex64), "complex64"),
        (np.array(["a"]), "<U1"),
        ((np.zeros(4), 0), "0 Hz"),
        ((np.zeros(4), float("nan")), "nan Hz"),
        ((np.zeros(4), "16000"), "found str"),
        ((np.zeros(4), True), "found bool"),
        ([0.0, 0.1], "found list"),
        (None, "NoneType"),
        (42, "int"),
    ],
)
def test_refusals_are_one_line(raw: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        everything(raw)
    assert "\n" not in str(caught.value)


def test_bare_samples_are_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "audio.raw"
    path.write_bytes(bytes(1000))
    with pytest.raises(InputError, match="not an audio file"):
        open_audio(path, RATE)


def test_nothing_stays_open(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = tmp_path / "audio.wav"
    path.write_bytes(encoded(audio(100), RATE, "WAV", "PCM_16"))
    reader = open_audio(path, RATE)
    reader.close()
    reader.close()
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match="cut short"):
        open_audio(path, RATE)
    assert not [warning for warning in recwarn if issubclass(warning.category, ResourceWarning)]


# Samples without a file


@pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
@pytest.mark.parametrize("rate", [RATE, 44100])
def test_samples_as_they_arrive_are_those_of_the_whole(size: int, rate: int) -> None:
    count = 500 if size == 1 else 50_000
    stereo = (audio(count)[:, None] * [32767, 10000]).astype("<i2")
    with open_audio((stereo, rate), RATE) as reader:
        whole = reader.read(1 << 20)
    pcm = PcmStream(rate, 2, 2, RATE)
    data = stereo.tobytes()
    parts = [pcm.feed(data[start : start + size]) for start in range(0, len(data), size)]
    parts.append(pcm.finish())
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)


def test_formats_of_samples() -> None:
    np.testing.assert_array_equal(PcmStream(RATE, 1, 1, RATE).feed(bytes([0, 128, 192])), np.float32([-1, 0, 0.5]))
    np.testing.assert_array_equal(PcmStream(RATE, 4, 1, RATE).feed(bytes([0, 0, 0, 64])), np.float32([0.5]))
    for width, rate, channels, message in (
        (3, RATE, 1, "the stream has 3 bytes for a sample: expected 1, 2 or 4"),
        (2, 10, 1, "the stream has a sample rate of 10 Hz: expected 1000 to 768000"),
        (2, RATE, 65, "the stream has 65 channels: expected 1 to 64"),
    ):
        with pytest.raises(InputError) as caught:
            PcmStream(rate, width, channels, RATE)
        assert str(caught.value) == message
