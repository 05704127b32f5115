"""The oldest LiteRT, and TensorFlow Lite before it, that has each version of each builtin operator.

Facts from google-ai-edge/LiteRT: `runtime_version.cc` (operator versions of TensorFlow Lite) and the versions that
`register.cc` lists at each release from v2.0.2 to v2.2.0. LiteRT 1.0 is TensorFlow Lite 2.17.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgeformer.doctor.examiner import Version, older, parse_version, show

LAST_TFLITE: Version = (2, 17)
FIRST_LITERT: Version = (1, 0)
TFLITE_PREFIX = "tflite-"


@dataclass(frozen=True)
class Oldest:
    """The oldest releases that have an operator's version.

    Attributes:
        tflite: of TensorFlow Lite; None: the facts name none.
        litert: of LiteRT, where releases between 1.0 and 2.0.2 count as 1.0; None: no release is known to have it.
    """

    tflite: Version | None
    litert: Version | None

    def __str__(self) -> str:
        names = [f"TensorFlow Lite {show(self.tflite)}"] if self.tflite else []
        return ", ".join([*names, *([f"LiteRT {show(self.litert)}"] if self.litert else [])])

    def in_runtime(self, runtime: str) -> bool | None:
        """Whether a runtime, "2.1.0" of LiteRT or "tflite-2.14.0", has it; None: not known.

        Raises:
            InputError: `runtime` is no version.
        """
        if runtime.startswith(TFLITE_PREFIX):
            version = parse_version(runtime.removeprefix(TFLITE_PREFIX), "--runtime tflite-")
            return None if self.tflite is None else not older(version, self.tflite)
        version = parse_version(runtime, "--runtime")
        return None if self.litert is None else not older(version, self.litert)


def oldest_runtime(operator: str, version: int) -> Oldest | None:
    """The oldest runtimes that have a version of a builtin operator; None: the table does not know it."""
    versions = _table().get(operator, ())
    return versions[version - 1] if 0 < version <= len(versions) else None


def _entry(text: str) -> Oldest | None:
    """`2.11` is TensorFlow Lite and so LiteRT 1.0; `2.21/2.1` is TensorFlow Lite 2.21 and LiteRT 2.1."""
    if text == "-":
        return None
    tflite, _, litert = text.partition("/")
    oldest = parse_version(tflite, "table")
    if litert:
        return Oldest(oldest, parse_version(litert, "table"))
    return Oldest(oldest, None if older(LAST_TFLITE, oldest) else FIRST_LITERT)


@cache
def _table() -> dict[str, tuple[Oldest | None, ...]]:
    """By operator the oldest runtime of its version 1, 2, 3, ..."""
    rows = Path(__file__).with_name("operator_versions.txt").read_text(encoding="utf-8").splitlines()
    return {name: tuple(map(_entry, versions)) for name, *versions in map(str.split, rows)}
