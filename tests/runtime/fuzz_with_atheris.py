"""Fuzzes the readers guided by coverage; optional: pip install atheris, then from the repository's root

    python tests/runtime/fuzz_with_atheris.py manifest|zip|filters [-max_total_time=600] [libFuzzer's options]

It stops at the first input that raises anything but this project's errors, and keeps that input in a file.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

sys.path.append(str(Path(__file__).resolve().parent))

with atheris.instrument_imports(include=["edgeformer_runtime", "zipfile", "json"]):
    from edgeformer_runtime.bundle import archive
    from edgeformer_runtime.bundle.manifest import parse
    from edgeformer_runtime.errors import EdgeFormerError
    from edgeformer_runtime.preprocess.log_mel import read_mel_filters

from tiny_speech_bundle import SOUND


def open_zip(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with archive.Reader(Path(file.name)) as reader:
            for name in reader.sizes:
                reader.read(name, 1 << 20)


READERS: dict[str, Callable[[bytes], object]] = {
    "manifest": parse,
    "zip": open_zip,
    "filters": lambda data: read_mel_filters(data, SOUND),
}


def main() -> None:
    read = READERS[sys.argv.pop(1)]

    def try_one(data: bytes) -> None:
        try:
            read(data)
        except EdgeFormerError as error:
            if "\n" in str(error):
                raise AssertionError(f"more than one line: {error}") from error

    atheris.Setup(sys.argv, try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
