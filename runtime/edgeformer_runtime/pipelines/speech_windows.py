"""Long sound in pieces that a model can hear at once, cut where nobody speaks."""

from __future__ import annotations

import numpy as np

from edgeformer_runtime.pipelines.speech_model import Samples
from edgeformer_runtime.preprocess.silence import quietest_cut


class SoundBuffer:
    """Sound that has been read and not yet transcribed.

    Attributes:
        start: the sample of the whole sound at which the buffer begins.
        samples: (N,) float32.
    """

    def __init__(self) -> None:
        self.start = 0
        self.samples: Samples = np.zeros(0, np.float32)

    @property
    def end(self) -> int:
        """The sample of the whole sound at which the buffer ends."""
        return self.start + len(self.samples)

    def append(self, samples: Samples) -> None:
        """Add what follows."""
        self.samples = np.concatenate((self.samples, samples))

    def drop(self, count: int) -> None:
        """Forget the first samples."""
        self.samples = self.samples[count:]
        self.start += count


def window_end(samples: Samples, window: int, sample_rate: int) -> int:
    """Where to end the first window of sound that is longer than one: in the best pause of its second half."""
    return quietest_cut(samples[:window], window // 2, window, sample_rate)
