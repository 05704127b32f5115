"""Audio from files and arrays, as a stream of mono float32 samples at a model's rate."""

from __future__ import annotations

import io
import math
import os
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.mp4_file import MAX_TRACKS, check_mp4
from edgeformer_runtime.process import held_back
from edgeformer_runtime.registry import load_attribute, load_optional

MIN_RATE, MAX_RATE = 1_000, 768_000
"""Sample rates that are accepted, in Hz."""

MAX_CHANNELS = 64
LOUDEST = 2.0**32
"""Largest magnitude of a sample. Full scale is 1, but float arrays that hold the values of integers are often met."""

BLOCK_FRAMES = 16384
"""Frames that are decoded at a time; a frame is one sample of each channel."""

RawAudio = str | PathLike[str] | bytes | bytearray | memoryview | NDArray[Any] | tuple[NDArray[Any], float]
"""A file, its bytes, an array (N,) or (N, channels) at the model's own rate, or such an array with its rate."""

Samples = NDArray[np.float32]

PCM_WIDTHS = {1: "u1", 2: "<i2", 4: "<i4"}
"""Bytes of a sample without a file around it, and what they are: as in a wav, little-endian."""

_PCM = ("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32")
_CODINGS = {
    "WAV": (*_PCM, "FLOAT", "DOUBLE"),
    "WAVEX": (*_PCM, "FLOAT", "DOUBLE"),
    "FLAC": _PCM,
    "OGG": ("VORBIS", "OPUS"),
    "MP3": ("MPEG_LAYER_III",),
}
"""What is decoded, in libsndfile's names: by container, the codings in it."""

_FFMPEG_CODECS = ("aac", "alac", "mp3", "mp3float", "opus", "vorbis", "flac")
"""What FFmpeg is asked to decode, in its names: what phones, browsers and meetings record."""
_FORMATS = "wav, flac, ogg or mp3, or m4a, mp4, webm or aac"

CANCELLED = 0.01
"""Of the channels' mean power: where their mean has less, they cancel out, as from a microphone of reversed poles."""

_UNKNOWN_FRAMES = 1 << 62
_UNKNOWN_SIZES = (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000)
"""What programs that write a wav into a pipe put where its size belongs."""
_UNFINISHED_BYTES = 4096
"""More than what is known to follow the samples of a wav that has none, such as a title."""


class AudioSource(Protocol):
    """Audio as it comes, block by block.

    Attributes:
        what: what messages call it.
        rate: frames per second.
        frames: how many there are in all, None where that is unknown.
    """

    what: str
    rate: float
    frames: int | None

    def read(self, count: int) -> Samples:
        """The next frames, at most `count`: (n, channels) float32; none at the end."""

    def close(self) -> None:
        """Release the file."""


class AudioReader:
    """A recording as mono samples at one rate, in constant memory for any length. Not for several threads at once."""

    def __init__(self, source: AudioSource, sample_rate: int) -> None:
        """Use `open_audio`."""
        self._source = source
        self._consumed = 0  # frames of the source
        self._pending: Samples = np.empty(0, np.float32)
        self._ended = False
        self._channel: int | None = None  # the only one that is taken
        self._resampler: Any = None
        if source.rate != sample_rate:
            resampler = load_optional("soxr:ResampleStream", "resampling", "speech")
            self._resampler = resampler(source.rate, sample_rate, 1, dtype="float32")

    @property
    def seconds(self) -> float | None:
        """The length that the source states, None where it states none; an mp3's may be an estimate."""
        return None if self._source.frames is None else self._source.frames / self._source.rate

    def read(self, count: int) -> Samples:
        """The next samples.

        Returns:
            (n,) float32, full scale is 1; the caller's own. n is below `count` only at the end of the audio.

        Raises:
            InputError: the file is corrupted or cut short, or the audio holds NaN, infinity or absurd values.
        """
        blocks, found = [self._pending], len(self._pending)
        while found < count and not self._ended:
            block = self._next_block()
            blocks.append(block)
            found += len(block)
        joined = np.concatenate(blocks)
        self._pending = joined[count:].copy()
        return joined[:count]

    def _next_block(self) -> Samples:
        """Some samples of the result, perhaps none; sees the end of the source."""
        block = self._source.read(BLOCK_FRAMES)
        mono: Samples = block[:, 0] if block.shape[1] == 1 else self._mixed(block)
        self._ended = not len(mono)
        self._check_values(mono)
        self._consumed += len(mono)
        if self._resampler is not None:
            mono = self._resampler.resample_chunk(np.ascontiguousarray(mono), last=self._ended)
        return mono

    def _mixed(self, block: Samples) -> Samples:
        """(n,): the mean of (n, channels), or the loudest channel, from where on they cancel out."""
        mean: Samples = block.mean(axis=1)
        if self._channel is None and len(block):
            powers = np.square(block, dtype=np.float64).mean(axis=0)
            if np.square(mean, dtype=np.float64).mean() < CANCELLED * powers.mean():
                self._channel = int(powers.argmax())
        return mean if self._channel is None else block[:, self._channel]

    def _check_values(self, mono: Samples) -> None:
        # Written so that NaN, which compares as false, is refused too.
        if not len(mono) or (mono.min() >= -LOUDEST and mono.max() <= LOUDEST):
            return
        index = int(np.argmin(np.abs(mono) <= LOUDEST))
        place = self._consumed + index
        raise InputError(
            f"{self._source.what} holds {float(mono[index]):g} at sample {place} ({place / self._source.rate:.3f} s): "
            "expected finite samples, from -1 to 1 for full scale"
        )

    def close(self) -> None:
        """Release the file. A second call does nothing."""
        self._source.close()

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_audio(raw: RawAudio, sample_rate: int) -> AudioReader:
    """Open a recording for reading as mono at `sample_rate`.

    Files are wav (8 to 32 bit, float), flac, ogg with Vorbis or Opus, and mp3; libsndfile reads more, and is not asked
    to. With the extra `media` they are also m4a, mp4, webm and aac, whose audio FFmpeg decodes. Channels are averaged,
    but where they cancel out one is taken; resampling is soxr's high quality. A wav or flac file that was cut short is
    refused; the others state no length that can be relied on, so theirs end where the data ends.

    Args:
        raw: see `RawAudio`. Integer arrays are scaled by the range of their dtype (unsigned ones around its middle);
            float arrays are taken as they are.
        sample_rate: of the samples that are read, in Hz.

    Raises:
        InputError: no such file, not audio, a rate or number of channels out of range, or an array of another kind.
    """
    if isinstance(raw, (str, PathLike)):
        return AudioReader(_open_path(Path(raw)), sample_rate)
    if isinstance(raw, (bytes, bytearray, memoryview)):
        data = bytes(raw)
        what = f"a recording of {len(data)} bytes"
        return AudioReader(_file_source(io.BytesIO(data), lambda: io.BytesIO(data), what), sample_rate)
    if isinstance(raw, np.ndarray):
        return AudioReader(_ArraySource(raw, sample_rate), sample_rate)
    if isinstance(raw, tuple) and len(raw) == 2 and isinstance(raw[0], np.ndarray):
        return AudioReader(_ArraySource(*raw), sample_rate)
    raise InputError(
        f"expected a recording as a path, a file's bytes, an array or (array, sample rate), found {type(raw).__name__}"
    )


def _open_path(path: Path) -> AudioSource:
    what = shorten(str(path))[1:-1]
    try:
        path.open("rb").close()
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise InputError(f"cannot read the audio {what}: {reason}") from None
    # As bytes: a path need not be text. Windows' are, and are not bytes.
    return _file_source(str(path) if os.name == "nt" else os.fsencode(path), lambda: path.open("rb"), what)


def _file_source(file: str | bytes | io.BytesIO, reopen: Callable[[], IO[bytes]], what: str) -> AudioSource:
    """The reader of a file, chosen by its first bytes, before any of a library's many parsers sees it."""
    with reopen() as opened:
        start = opened.read(12)
    wave = start[:4] == b"RIFF" and start[8:] == b"WAVE"
    adts = start[:1] == b"\xff" and len(start) > 1 and start[1] & 0xF6 == 0xF0  # AAC; mp3 has other bits of a layer
    mp3 = start[:3] == b"ID3" or (start[:1] == b"\xff" and start[1:2] >= b"\xe0")
    for container, is_one in (
        ("mp4", start[4:8] == b"ftyp"),
        ("matroska", start[:4] == b"\x1aE\xdf\xa3"),
        ("aac", adts),
    ):
        if is_one:
            if container == "mp4":
                with reopen() as opened:
                    check_mp4(opened, what)
            return _FfmpegSource(reopen(), container, what)
    if wave or mp3 or start[:4] in (b"fLaC", b"OggS"):
        return _FileSource(file, reopen, what)
    raise InputError(f"{what} is not an audio file: expected {_FORMATS}")


class _FileSource:
    """A file that libsndfile decodes."""

    def __init__(self, file: str | bytes | io.BytesIO, reopen: Callable[[], IO[bytes]], what: str) -> None:
        """`reopen` gives the file's bytes once more, for what libsndfile does not tell."""
        self.what = what
        self._failure = load_optional("soundfile:SoundFileError", "reading audio files", "speech")
        try:
            with held_back(shown_on_failure=False):
                self._file = load_optional("soundfile:SoundFile", "reading audio files", "speech")(file)
        except (self._failure, TypeError) as error:  # TypeError: its name says bare samples, whose rate nobody knows
            raise InputError(f"{what} is not an audio file: expected {_FORMATS} ({self._reason(error)})") from None
        try:
            _check_coding(self._file.format, self._file.subtype, what)
            _check_format(self._file.samplerate, self._file.channels, what)
            if self._file.format in ("WAV", "WAVEX"):
                _check_wav_length(reopen, what)
        except BaseException:
            self._file.close()
            raise
        # Else it seeks to where it already is after every block, which is slow in Opus and inexact in mp3.
        self._file.seekable = lambda: False
        self.rate = float(self._file.samplerate)
        self.frames = int(self._file.frames) if 0 <= self._file.frames < _UNKNOWN_FRAMES else None
        self._missing = self.frames if self._file.format == "FLAC" else None
        # mpg123 prints a line for every byte that it skips, and has no switch that libsndfile turns.
        self._quiet: Callable[[], AbstractContextManager[None]] = (
            partial(held_back, shown_on_failure=False) if self._file.format == "MP3" else nullcontext
        )

    def read(self, count: int) -> Samples:
        try:
            with self._quiet():
                block: Samples = self._file.read(count, dtype="float32", always_2d=True)
        except self._failure as error:
            raise InputError(f"{self.what} is corrupted or cut short: {self._reason(error)}") from None
        if self._missing is not None:
            self._missing -= len(block)
            if not len(block) and self._missing > 0:
                raise InputError(f"{self.what} was cut short: {self._missing} of {self.frames} samples are missing")
        return block

    def close(self) -> None:
        self._file.close()

    @staticmethod
    def _reason(error: Exception) -> str:
        return shorten(str(getattr(error, "error_string", "it states no format")))[1:-1].rstrip(".")


class _FfmpegSource:
    """The first audio track of a file that FFmpeg decodes, through PyAV; no other file is opened for it."""

    def __init__(self, file: IO[bytes], container: str, what: str) -> None:
        self.what = what
        self._file = file
        self._container: Any = None
        try:
            self._failure = load_optional("av.error:FFmpegError", f"reading {container} files", "media")
        except InputError:
            file.close()
            raise
        try:
            # A title need not be UTF-8. Of other codecs no decoder is opened, not even to look at a stream.
            options = {"codec_whitelist": ",".join(_FFMPEG_CODECS), "max_streams": str(MAX_TRACKS)}
            opening = load_attribute("av:open")
            self._container = opening(file, format=container, options=options, metadata_errors="replace")
            self._open_track()
        except self._failure as error:
            self.close()
            raise InputError(f"{what} is not an audio file, or corrupted: {_ffmpeg_reason(error)}") from None
        except BaseException:
            self.close()
            raise

    def _open_track(self) -> None:
        if not self._container.streams.audio:
            raise InputError(f"{self.what} has no audio")
        track = self._container.streams.audio[0]
        codec = track.codec_context
        coding = "an unknown coding" if codec is None else codec.name
        if coding not in _FFMPEG_CODECS:
            raise InputError(f"{self.what} has audio of {coding}: expected {', '.join(_FFMPEG_CODECS)}")
        self._channels: int = codec.channels
        _check_format(codec.sample_rate, self._channels, self.what)
        self.rate = float(codec.sample_rate)
        length = track.duration * track.time_base if track.duration and track.time_base else None
        self.frames: int | None = None if length is None else round(length * codec.sample_rate)
        self._resampler = load_attribute("av:AudioResampler")(format="fltp")  # of the format alone
        self._decoded = self._container.decode(track)
        self._pending: Samples = np.empty((0, self._channels), np.float32)

    def read(self, count: int) -> Samples:
        try:
            while not len(self._pending) and (frame := next(self._decoded, None)) is not None:
                self._pending = np.concatenate([part.to_ndarray().T for part in self._resampler.resample(frame)])
                if self._pending.shape[1] != self._channels or frame.sample_rate != self.rate:
                    raise InputError(
                        f"{self.what} changes its number of channels or its sample rate: convert it to wav"
                    )
        except self._failure as error:
            raise InputError(f"{self.what} is corrupted or cut short: {_ffmpeg_reason(error)}") from None
        block, self._pending = self._pending[:count], self._pending[count:]
        return block

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
        self._file.close()


def _ffmpeg_reason(error: Exception) -> str:
    return shorten(str(getattr(error, "strerror", None) or error))[1:-1].rstrip(".")


class _ArraySource:
    """An array (N,) or (N, channels) of floats or of integers of up to 32 bits."""

    what = "the array"

    def __init__(self, array: NDArray[Any], rate: Any) -> None:
        kind, size = array.dtype.kind, array.dtype.itemsize
        if not (kind == "f" or (kind in "iu" and size <= 4)):
            raise InputError(f"expected a recording array of floats or of 8 to 32 bit integers, found {array.dtype}")
        if array.ndim not in (1, 2):
            raise InputError(f"expected a recording array (samples,) or (samples, channels), found shape {array.shape}")
        if isinstance(rate, bool) or not isinstance(rate, (int, float, np.integer, np.floating)):
            raise InputError(f"expected a sample rate in Hz as a number, found {type(rate).__name__}")
        self._array = array if array.ndim == 2 else array[:, None]
        self._scale = 1.0 if kind == "f" else 2.0 ** (8 * size - 1)
        self._middle = self._scale if kind == "u" else 0.0
        self._next = 0
        self.rate = float(rate)
        self.frames: int | None = len(array)
        _check_format(self.rate, self._array.shape[1], f"the array of shape {array.shape}")

    def read(self, count: int) -> Samples:
        block = self._array[self._next : self._next + count]
        self._next += len(block)
        if self._scale == 1.0:
            with np.errstate(over="ignore"):  # becomes infinity, which the reader refuses
                return block.astype(np.float32)
        # float64 holds each integer, so that there is one rounding.
        return ((block.astype(np.float64) - self._middle) / self._scale).astype(np.float32)

    def close(self) -> None:
        pass


class PcmStream(AudioReader):
    """Samples without a file around them, made mono at a model's rate as they arrive: call `feed`, not `read`."""

    def __init__(self, rate: float, width: int, channels: int, sample_rate: int) -> None:
        """Expect frames of `channels` samples of `width` bytes, `rate` a second; give `sample_rate` a second.

        Raises:
            InputError: no such format.
        """
        if width not in PCM_WIDTHS:
            raise InputError(f"the stream has {width!r} bytes for a sample: expected 1, 2 or 4")
        _check_format(rate, channels, "the stream")
        self._empty = np.empty((0, channels), PCM_WIDTHS[width])
        self._rate = rate
        self._rest = b""
        super().__init__(_ArraySource(self._empty, rate), sample_rate)

    def feed(self, data: bytes) -> Samples:
        """What arrived, as (n,) float32; an unfinished frame waits for its rest."""
        data = self._rest + data
        whole = len(data) - len(data) % (self._empty.itemsize * self._empty.shape[1])
        self._rest = data[whole:]
        frames = np.frombuffer(data[:whole], self._empty.dtype).reshape(-1, self._empty.shape[1])
        self._source = _ArraySource(frames, self._rate)
        blocks = [self._next_block() for _ in range(0, len(frames), BLOCK_FRAMES)]
        return np.concatenate([np.empty(0, np.float32), *blocks])

    def finish(self) -> Samples:
        """What the resampler has kept back, (n,) float32. Nothing arrives behind it."""
        self._source = _ArraySource(self._empty, self._rate)
        return self._next_block()


def _check_coding(container: str, coding: str, what: str) -> None:
    known = _CODINGS.get(container)
    if known is None or coding not in known:
        raise InputError(
            f"{what} is {container} with {coding}: expected wav (PCM, float), flac, ogg (Vorbis, Opus) or mp3"
        )


def _check_format(rate: float, channels: int, what: str) -> None:
    if not (math.isfinite(rate) and MIN_RATE <= rate <= MAX_RATE):
        raise InputError(f"{what} has a sample rate of {rate:g} Hz: expected {MIN_RATE} to {MAX_RATE}")
    if not 1 <= channels <= MAX_CHANNELS:
        raise InputError(f"{what} has {channels} channels: expected 1 to {MAX_CHANNELS}")


def _check_wav_length(reopen: Callable[[], IO[bytes]], what: str) -> None:
    """Compare what a wav's chunk of samples states with what is there; libsndfile takes what it finds, in silence."""
    with reopen() as file:
        end = file.seek(0, io.SEEK_END)
        position = 12  # behind RIFF, its size and WAVE
        while position + 8 <= end:
            file.seek(position)
            name, size = struct.unpack("<4sI", file.read(8))
            position += 8
            if name == b"data":
                break
            position += size + size % 2
        else:
            return
    if not size and end - position > _UNFINISHED_BYTES:
        raise InputError(
            f"{what} states that it has no samples, found {end - position} bytes: its recorder was stopped"
        )
    if size not in _UNKNOWN_SIZES and position + size > end:
        raise InputError(f"{what} was cut short: {position + size - end} of {size} bytes of samples are missing")
