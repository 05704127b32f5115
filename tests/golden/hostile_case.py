"""A model file that a reader takes or refuses, with what its manifest states."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

FILES = {"onnx": "model.onnx", "litert": "model.tflite", "executorch": "model.pte", "coreml": "model.mlpackage"}


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        name: what it is.
        target: the bundle's.
        files: the bundle's files, by name.
        entry: the program's.
        inputs: the shape of its input x, float32.
        outputs: the shape of its output y, float32.
        operators: as the manifest states them.
        sound: a reader takes it.
    """

    name: str
    target: str
    files: dict[str, bytes]
    entry: str
    inputs: list[int]
    outputs: list[int]
    operators: dict[str, int]
    sound: bool

    def to_json(self) -> dict[str, Any]:
        """As it stands in the golden file."""
        return {
            "name": self.name,
            "target": self.target,
            "files": {name: base64.b64encode(data).decode() for name, data in self.files.items()},
            "program": {"file": FILES[self.target], "entry": self.entry, "x": self.inputs, "y": self.outputs},
            "operators": self.operators,
            "error": None if self.sound else "BundleError",
        }
