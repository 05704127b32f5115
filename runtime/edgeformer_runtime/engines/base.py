"""What an engine is: it opens a bundle's model files and runs the programs in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from edgeformer_runtime.bundle.specs import AudioBucket, Transcription

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeformer_runtime.engines.decoder import SpeechDecoder

Tensor: TypeAlias = "NDArray[np.generic]"


class Engine(Protocol):
    """Runs a bundle's programs. Calls from several threads are serialised inside the engine."""

    name: str
    """The engine's key in the table of engines: "litert", "onnx", "executorch", "coreml"."""

    executed_by: str
    """What really executes the program, with its version: "ai-edge-litert 2.3.0"."""

    not_covered: str | None
    """What an answer of this engine cannot show about the target, in a sentence; None for the target's own engine."""

    def run(self, program: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run one program.

        Args:
            program: a program's name in the manifest.
            inputs: one array per input of the program, with the dtype and shape that the manifest states.

        Returns:
            One array per output of the program, by name. The arrays are the caller's.

        Raises:
            InputError: an unknown program, or an input that is missing, superfluous or of another dtype or shape.
        """

    def open_decoder(self, bucket: AudioBucket, spec: Transcription) -> SpeechDecoder:
        """A speech decoder over a bucket's three programs, with caches of its own.

        Several may be open at once, and each holds the caches of its bucket: close those that are not needed. None
        works after the engine is closed.
        """

    def close(self) -> None:
        """Release the model. A second call does nothing."""
