"""A process that serves a bundle with limits of its own, and whose pipelines do what tests need.

`python odd_service.py BUNDLE OPTIONS`: OPTIONS is JSON for `ServeOptions`, and "allow_deaths": how many pipelines open
again. A text "sleep S" takes S seconds and gives up when told to; "hang S" does not give up; "panic" raises what is no
Exception; others are answered as usual. A speech bundle's model transcribes noise.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from served import open_noise

from edgeformer_runtime import load
from edgeformer_runtime.pipelines import Pipeline
from edgeformer_runtime.pipelines.text import TextClassifier
from edgeformer_runtime.serve.options import FallbackOptions, ServeOptions
from edgeformer_runtime.serve.server import address, open_socket, run_server
from edgeformer_runtime.serve.service import Service


class Panic(BaseException):
    """What pyo3 raises where Rust panics."""


class OddClassifier(TextClassifier):
    """Does what the text says."""

    def prepare(self, raw: Any) -> Any:
        verb, _, seconds = raw.partition(" ") if isinstance(raw, str) else ("", "", "")
        if verb == "panic":
            raise Panic("called `Option::unwrap()` on a `None` value")
        if verb == "hang":
            time.sleep(float(seconds))
        return super().prepare(raw)


def main() -> None:
    path, given = Path(sys.argv[1]), json.loads(sys.argv[2])
    opens = given.pop("opens", 1000)
    if "fallback" in given:
        given["fallback"] = FallbackOptions(**given["fallback"])
    speaks = json.loads((path / "manifest.json").read_text())["task"] == "speech-recognition"

    def open_one() -> Pipeline[Any, Any]:
        nonlocal opens
        if opens <= 0:
            raise OSError("no more")
        opens -= 1
        if speaks:
            return open_noise(path)
        plain = load(path)
        return OddClassifier(plain.bundle, plain.engine, owned=True)

    listening = open_socket("127.0.0.1", 0)
    service = Service(open_one, ServeOptions(**given))
    run_server(service, listening, lambda: print(f"it answers at {address(listening)} ", flush=True))


if __name__ == "__main__":
    main()
