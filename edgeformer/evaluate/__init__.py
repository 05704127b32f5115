"""Evaluation: bundles and sources measured on labelled data, side by side."""

from edgeformer import make_callable

make_callable(__name__)
