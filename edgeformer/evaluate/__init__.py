"""Evaluation: bundles and sources measured on labelled data, side by side."""
