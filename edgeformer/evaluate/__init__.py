"""Evaluation: bundles and sources measured on labelled data, side by side."""

from edgeformer.callable_package import make_callable

make_callable(__name__)
