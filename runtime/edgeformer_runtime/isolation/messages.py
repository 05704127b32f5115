"""Inputs and answers as frames; what the helper process says is checked before it counts."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime.bundle.manifest import Manifest
from edgeformer_runtime.bundle.specs import TensorSpec
from edgeformer_runtime.decoding.tokenizer import check_messages, is_chat
from edgeformer_runtime.errors import BundleError, EdgeFormerError, EngineError, InputError
from edgeformer_runtime.isolation.process import MAX_BODY_BYTES, Frame, said_error
from edgeformer_runtime.pipelines.results import Result
from edgeformer_runtime.preprocess.tokenizer import check_text
from edgeformer_runtime.registry import load_attribute
from edgeformer_runtime.tasks.image_text import text_of
from edgeformer_runtime.tasks.task import TASKS

MAX_TOLD = 500
"""Characters of an error's message."""
_SCALAR_KINDS = "biuf"
"""numpy's kinds of dtypes that are numbers."""


def text_frame(raw: Any, _: str) -> Frame:
    """A text, a pair of texts, or token ids. A text that no tokenizer takes is refused before it is sent."""
    if isinstance(raw, str):
        check_text(raw)
        return Frame({"text": raw})
    if isinstance(raw, tuple) and len(raw) == 2 and all(isinstance(each, str) for each in raw):
        for text in raw:
            check_text(text)
        return Frame({"pair": list(raw)})
    if isinstance(raw, (list, np.ndarray)) and all(
        isinstance(each, (int, np.integer)) and not isinstance(each, bool) for each in raw
    ):
        return Frame({"token_ids": [int(each) for each in raw]})
    raise InputError(f"expected a text, a pair of texts or a list of token ids, found {type(raw).__name__}")


def prompt_frame(raw: Any, kind: str) -> Frame:
    """A text, token ids, or a chat."""
    if is_chat(raw):
        check_messages(raw)
        return Frame({"messages": [dict(message) for message in raw]})
    return text_frame(raw, kind)


def file_frame(raw: Any, kind: str) -> Frame:
    """An image or audio: a file, its bytes, an array, an array with its rate, or a Pillow image."""
    if isinstance(raw, (str, PathLike)):
        return Frame({"bytes": kind}, _read(Path(raw)))
    if isinstance(raw, (bytes, bytearray, memoryview)):
        return Frame({"bytes": kind}, _bounded(bytes(raw)))
    if isinstance(raw, tuple) and len(raw) == 2 and isinstance(raw[0], np.ndarray):
        return _array_frame(raw[0], raw[1])
    if isinstance(raw, np.ndarray):
        return _array_frame(raw, None)
    if hasattr(raw, "save") and hasattr(raw, "mode"):
        buffer = io.BytesIO()
        raw.save(buffer, "TIFF")  # lossless in every mode of Pillow's
        return Frame({"bytes": kind}, _bounded(buffer.getvalue()))
    raise InputError(f"expected a file's path, its bytes or an array, found {type(raw).__name__}")


def image_text_frame(raw: Any, _: str) -> Frame:
    """An image as `file_frame` has it, or {"text"}."""
    if not isinstance(raw, Mapping):
        return file_frame(raw, "image")
    check_text(text_of(raw))
    return Frame({"named": dict(raw)})


def _array_frame(array: NDArray[Any], rate: Any) -> Frame:
    if array.dtype.kind not in _SCALAR_KINDS:
        raise InputError(f"expected an array of numbers, found {array.dtype}")
    header = {"dtype": array.dtype.str, "shape": list(array.shape), "rate": None if rate is None else float(rate)}
    return Frame({"array": header}, _bounded(np.ascontiguousarray(array).tobytes()))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return _bounded(file.read(MAX_BODY_BYTES + 1))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None


def _bounded(data: bytes) -> bytes:
    if len(data) > MAX_BODY_BYTES:
        raise InputError(f"expected at most {MAX_BODY_BYTES >> 20} MiB for an isolated bundle, found more")
    return data


def read_raw(frame: Frame) -> Any:
    """What a pipeline takes, in the helper process."""
    header = frame.header
    if "text" in header:
        return header["text"]
    if "pair" in header:
        return tuple(header["pair"])
    for kind in ("token_ids", "messages"):
        if kind in header:
            return header[kind]
    if "bytes" in header:
        return frame.body
    if "named" in header:
        return header["named"]
    stated = header["array"]
    array = np.frombuffer(frame.body, np.dtype(stated["dtype"])).reshape(stated["shape"])
    return array if stated["rate"] is None else (array, stated["rate"])


def answer_frame(result: Result) -> Frame:
    """A pipeline's result."""
    return Frame(*result.to_frame())


def read_answer(frame: Frame, manifest: Manifest, options: Any = None) -> Any:
    """A result, if it is one of this bundle's, to a call with these options.

    Raises:
        EngineError: it is not.
    """
    gives = TASKS[manifest.task].gives
    kind: type[Result] = load_attribute(gives.result)
    try:
        return kind.from_frame(frame.header, frame.body, gives.answered(manifest.postprocessing, options))
    except (BundleError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise EngineError(f"the isolated bundle's process sent no valid answer: {error}") from None


def answers_frame(found: Iterable[Result | EdgeFormerError]) -> Frame:
    """Results and errors of several inputs, in their order; the results' bodies one after the other."""
    headers: list[dict[str, Any]] = []
    bodies = []
    for each in found:
        if isinstance(each, EdgeFormerError):
            headers.append({"error": type(each).__name__, "message": " ".join(str(each).split())[:MAX_TOLD]})
            continue
        frame = answer_frame(each)
        headers.append({"answer": frame.header, "bytes": len(frame.body)})
        bodies.append(frame.body)
    return Frame({"answers": headers}, b"".join(bodies))


def read_answers(frame: Frame, count: int, manifest: Manifest, options: Any = None) -> list[Any]:
    """So many results and errors, to calls with these options.

    Raises:
        EngineError: it says others.
    """
    told = frame.header.get("answers")
    if not isinstance(told, list) or len(told) != count or not all(isinstance(each, dict) for each in told):
        raise EngineError("the isolated bundle's process sent no valid answers: they are not as many as the inputs")
    found: list[Any] = []
    at = 0
    for each in told:
        if "error" in each:
            found.append(said_error(each))
            continue
        size, header = each.get("bytes"), each.get("answer")
        if not isinstance(size, int) or not 0 <= size <= len(frame.body) - at or not isinstance(header, dict):
            raise EngineError("the isolated bundle's process sent no valid answers: one has no length")
        found.append(read_answer(Frame(header, frame.body[at : at + size]), manifest, options))
        at += size
    return found


# Tensors whose names, types and shapes both sides know, as their bytes one after the other.


def pack(tensors: Mapping[str, Any], specs: Sequence[TensorSpec]) -> bytes:
    """The tensors' bytes, in the order of their specs."""
    return b"".join(np.ascontiguousarray(tensors[spec.name]).tobytes() for spec in specs)


def unpack(data: bytes, specs: Sequence[TensorSpec]) -> dict[str, Any]:
    """The tensors, which are the caller's to change.

    Raises:
        ValueError: there are more or fewer bytes than they have.
    """
    found, at = {}, 0
    for spec in specs:
        count, kind = math.prod(spec.shape), np.dtype(spec.dtype)
        found[spec.name] = np.frombuffer(data, kind, count, at).reshape(spec.shape).copy()
        at += count * kind.itemsize
    if at != len(data):
        raise ValueError(f"expected {at} bytes of tensors, found {len(data)}")
    return found
