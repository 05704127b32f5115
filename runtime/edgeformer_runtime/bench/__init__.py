"""Measures contenders against each other: a process for each, fair turns, intervals, memory, energy, the device.

A contender's process (`edgeformer_runtime.bench_worker`) does not import this package, so that none of it is measured.
"""

from edgeformer_runtime.bench.bundles import bundle_contender
from edgeformer_runtime.bench.child import Child
from edgeformer_runtime.bench.contender import Cell, Contender, Run
from edgeformer_runtime.bench.measure import measure_cells
from edgeformer_runtime.bench.report import Report, Row

__all__ = ["Cell", "Child", "Contender", "Report", "Row", "Run", "bundle_contender", "measure_cells"]
