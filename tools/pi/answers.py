"""Run in emulation: answers a text with a bundle, and has `instructions.c` tell how much it had executed by then.

    python tools/pi/answers.py BUNDLE

It asks before and after the second answer, as the first one loads and prepares what later ones find.
"""

from __future__ import annotations

import ctypes
import sys

from edgeformer_runtime import load

TEXT = "turn the lights off in the kitchen please"
_ASKED = 77
"""As in `instructions.c`."""


def main() -> None:
    """Entry point."""
    library = ctypes.CDLL(None)
    with load(sys.argv[1]) as pipeline:
        pipeline(TEXT)
        library.getpriority(_ASKED, 0)
        pipeline(TEXT)
        library.getpriority(_ASKED, 0)


if __name__ == "__main__":
    main()
