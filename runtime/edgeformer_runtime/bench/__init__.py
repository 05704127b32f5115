"""Measures contenders against each other: a process for each, fair turns, intervals, memory, energy, the device.

A contender's process (`edgeformer_runtime.bench.worker`) does not import this package, so that none of it is measured.
"""
