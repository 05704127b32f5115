"""What will break on a device, found before one is at hand: checks of a bundle, each a function that gives findings."""

from edgeformer import make_callable

make_callable(__name__)
