"""A bigger model elsewhere, asked where the device is not sure. Only then does an input leave the device."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeformer_runtime.bundle.manifest import Manifest
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.serve.inputs import JSON_TYPE, Answer, first_problem
from edgeformer_runtime.serve.options import FallbackOptions

FROM_DEVICE = "X-EdgeFormer-Fallback"
"""A request with this header comes from a device in doubt: who gets it does not ask anybody else."""

MAX_ANSWER_BYTES = 4 << 20
MAX_CONNECTIONS = 16

AnyAnswer = TypeVar("AnyAnswer", bound=Answer)


class FallbackError(Exception):
    """The fallback gave no answer that can be used; one line says why."""


class Fallback:
    """Asks a service that takes this one's requests."""

    def __init__(self, options: FallbackOptions, manifest: Manifest) -> None:
        """Connections are made when they are needed. `close` ends them.

        Args:
            options: whom to ask.
            manifest: of the bundle in whose place the fallback answers.
        """
        self.options = options
        self.manifest = manifest
        self._client = httpx.AsyncClient(
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS), timeout=options.timeout_s, follow_redirects=False
        )

    def doubts(self, answer: Answer) -> bool:
        """Whether an answer of the device is too unsure."""
        return answer.confidence is not None and answer.confidence < self.options.below

    async def ask(self, device: AnyAnswer, read: ReadFallback, body: bytes, content_type: str, query: str) -> AnyAnswer:
        """The fallback's answer to a request.

        Args:
            device: the device's own answer, whose confidence and statistics stay.
            read: reads the fallback's answer.
            body: the request's body.
            content_type: of the body.
            query: of the request, as "top=3".

        Raises:
            FallbackError: it cannot be reached, takes too long, or its answer is none to this task.
        """
        try:
            document = await asyncio.wait_for(self._post(body, content_type, query), self.options.timeout_s)
            found = read(document, device, self.manifest)
        except (asyncio.TimeoutError, httpx.TimeoutException):  # noqa: UP041  (another class in Python 3.10)
            raise FallbackError(f"no answer within {self.options.timeout_s:g} s") from None
        except httpx.HTTPError as error:
            raise FallbackError(f"{type(error).__name__}: {error}".removesuffix(": ")) from None
        except (ForeignAnswerError, ValidationError) as error:
            problem = first_problem(error) if isinstance(error, ValidationError) else error
            raise FallbackError(f"its answer is another than expected: {problem}") from None
        return device.model_copy(update=found | {"answered_by": "fallback", "fallback_error": None})

    async def _post(self, body: bytes, content_type: str, query: str) -> bytes:
        # A compressed answer could have any size once it is read.
        headers = {"Content-Type": content_type, FROM_DEVICE: "1", "Accept-Encoding": "identity"}
        url = httpx.URL(self.options.url).copy_merge_params(httpx.QueryParams(query))
        async with self._client.stream("POST", url, content=body, headers=headers) as response:
            if response.status_code != httpx.codes.OK:
                raise FallbackError(f"it answered with the status {response.status_code}")
            kind = response.headers.get("content-type", "")
            if kind.partition(";")[0].strip().lower() != JSON_TYPE:
                raise FallbackError(f"its answer has the content type {shorten(kind, 60)}, expected {JSON_TYPE}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise FallbackError("its answer is compressed, expected it as it is")
            document = bytearray()
            async for chunk in response.aiter_raw():
                document += chunk
                if len(document) > MAX_ANSWER_BYTES:
                    raise FallbackError(f"its answer has more than {MAX_ANSWER_BYTES} bytes")
            return bytes(document)

    async def close(self) -> None:
        """End the connections."""
        await self._client.aclose()


# Answers of a fallback, which are believed only if the bundle itself could have given them.


class ForeignAnswerError(ValueError):
    """An answer that the bundle could not have given; one line says why."""


class Foreign(BaseModel):
    """A document of finite numbers whose values are not converted; what else it holds is not taken over."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, frozen=True)


Probability = Annotated[float, Field(ge=0, le=1)]

ReadFallback = Callable[[bytes, Any, Manifest], dict[str, Any]]
"""What a fallback's document has in place of the device's answer, of the bundle with that manifest. It raises
ForeignAnswerError or ValidationError where the bundle could not have given it."""
