"""What requests hold: JSON for texts, a file's bytes for an image or a sound; and the options beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json

from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.pipelines.base import Raw
from edgeformer_runtime.preprocess.text import RawText
from edgeformer_runtime.serve.refusals import Refusal, first_problem

BYTES_TYPE = "application/octet-stream"
JSON_TYPE = "application/json"
MAX_TOKEN_IDS = 1 << 16
"""In one input: far more than any bundle has positions."""
MAX_JSON_VALUES = 1 << 18
"""In one document: objects in Python take up to a hundred times the bytes of their JSON, and seconds to be made."""


class Strict(BaseModel):
    """A document whose every key is known, and whose values are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TextInput(Strict):
    """One text, a text and its pair, or token ids in their place."""

    text: str | None = None
    pair: str | None = None
    token_ids: list[int] | None = Field(None, max_length=MAX_TOKEN_IDS, fail_fast=True)

    @model_validator(mode="after")
    def _one_of(self) -> TextInput:
        if (self.text is None) == (self.token_ids is None) or (self.pair is not None and self.text is None):
            raise ValueError('expected {"text"}, {"text", "pair"} or {"token_ids"}')
        return self

    def raw(self) -> RawText:
        """What a text pipeline takes."""
        if self.token_ids is not None:
            return self.token_ids
        return (self.text or "", self.pair) if self.pair is not None else (self.text or "")


class TextInputs(Strict):
    """Several texts, answered in this order by one answer."""

    inputs: list[TextInput] = Field(min_length=1, fail_fast=True)


class ClassifyQuery(BaseModel):
    """Options in the address of a classification."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    top: int | None = Field(None, ge=1, description="How many labels to give, best first; default: all.")


class EmbedQuery(BaseModel):
    """An embedding takes no options."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SpeechQuery(BaseModel):
    """Options in the address of a transcription."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    language: str | None = Field(None, description="As en; default: found out.")
    task: str = Field("transcribe", description="transcribe, or translate into English.")
    beam_size: int = Field(1, ge=1, le=8, description="Hypotheses to follow.")
    timestamps: bool = Field(False, description="The model's times of segments.")
    words: bool = Field(False, description="The times of words.")
    prompt: str | None = Field(None, description="Text before it, for names and style.")

    def options(self) -> TranscribeOptions:
        """What a transcriber takes.

        Raises:
            InputError: an option has a value that no transcriber takes.
        """
        return TranscribeOptions(
            language=self.language,
            task=self.task,
            beam_size=self.beam_size,
            timestamps=self.timestamps,
            word_timestamps=self.words,
            initial_prompt=self.prompt,
        )


@dataclass(frozen=True)
class Inputs(Generic[Raw]):
    """The inputs of one request.

    Attributes:
        raws: what the pipeline takes, at least one.
        several: they came as a list, so their answers go as one.
        single_body: the body of a request that holds one of them alone, by its index.
        content_type: of those bodies.
    """

    raws: tuple[Raw, ...]
    several: bool
    single_body: Callable[[int], bytes]
    content_type: str


def read_texts(body: bytes, content_type: str, max_inputs: int) -> Inputs[RawText]:
    """Texts from JSON.

    Raises:
        Refusal: 400 no JSON, 413 too many inputs, 415 another content type, 422 another document than expected.
    """
    if _media_type(content_type) != JSON_TYPE:
        raise Refusal(415, f"expected Content-Type: {JSON_TYPE}, found {content_type or 'none'}")
    if _has_many_values(body):
        raise Refusal(413, f"expected at most {MAX_JSON_VALUES} values in JSON, found more")
    try:
        document: Any = from_json(body)
    except ValueError as error:
        raise Refusal(400, f"expected JSON: {error}") from None
    several = isinstance(document, dict) and "inputs" in document
    _check_keys(document, TextInputs if several else TextInput)
    found = document["inputs"] if several else []
    if isinstance(found, list) and len(found) > max_inputs:  # before each of them is looked at
        raise Refusal(413, f"expected at most {max_inputs} inputs at once, found {len(found)}")
    for item in found if isinstance(found, list) else ():
        _check_keys(item, TextInput)
    try:
        texts = TextInputs.model_validate(document).inputs if several else [TextInput.model_validate(document)]
    except ValidationError as error:
        raise Refusal(422, first_problem(error)) from None

    def single_body(index: int) -> bytes:
        return texts[index].model_dump_json(exclude_none=True).encode()

    return Inputs(tuple(text.raw() for text in texts), several, single_body, JSON_TYPE)


def read_file(body: bytes, content_type: str, kind: str) -> Inputs[bytes]:
    """An image or a sound: a file's bytes. What they are is for the decoder to say.

    Args:
        body: the file.
        content_type: of the request.
        kind: "image" or "audio": the files' content types begin with it.

    Raises:
        Refusal: 415 another content type, 422 no bytes.
    """
    media_type = _media_type(content_type)
    if media_type != BYTES_TYPE and not media_type.startswith(f"{kind}/"):
        found = content_type or "none"
        raise Refusal(415, f"expected a file as the body, Content-Type: {kind}/... or {BYTES_TYPE}, found {found}")
    if not body:
        raise Refusal(422, "expected a file as the body, found nothing")
    return Inputs((body,), False, lambda _: body, content_type)


def _has_many_values(document: bytes) -> bool:
    """Whether a document has more values than are taken, found without making them."""
    if _count_values(document) < MAX_JSON_VALUES:
        return False
    plain = document.replace(rb"\\", b"").replace(rb"\"", b"")
    if plain.count(b'"') > 4 * MAX_JSON_VALUES:
        return True
    outside = b"".join(plain.split(b'"')[::2])  # texts may have any number of commas
    return _count_values(outside) >= MAX_JSON_VALUES


def _count_values(document: bytes) -> int:
    return document.count(b",") + document.count(b"[") + document.count(b"{")


def _check_keys(document: Any, kind: type[Strict]) -> None:
    """Refuse the first unknown key: the model would list all of them.

    Raises:
        Refusal: 422, there is one.
    """
    unknown = (
        next((key for key in document if key not in kind.model_fields), None) if isinstance(document, dict) else None
    )
    if unknown is not None:
        raise Refusal(422, f"{shorten(unknown)[1:-1]}: expected none but {', '.join(kind.model_fields)}")


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
