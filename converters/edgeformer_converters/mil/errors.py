"""The border around a Core ML package from a stranger: whatever its bytes make of reading or running it is one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import EdgeFormerError, EngineError, InputError


@contextmanager
def one_line(what: str, kind: type[EngineError] | type[InputError]) -> Iterator[None]:
    """Turn what is raised inside the block into an error that says that the package is at fault.

    A message that is no program can be read as anything: a list as a tensor, a size below zero, a type without a name.
    Protobuf, the reader of weights, numpy and torch have no base class for what they raise then.

    Args:
        what: is read or run, for the message.
        kind: of the error.

    Raises:
        EdgeFormerError: of that kind, or as it was raised inside.
    """
    try:
        yield
    except (EdgeFormerError, ImportError):
        raise
    except Exception as error:
        reason = shorten(" ".join(str(error).split()), 200)[1:-1]
        raise kind(f"{what}: the Core ML program is not consistent: {type(error).__name__}: {reason}") from error
