"""Dynamic time warping: the cheapest monotone path through a matrix of costs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def cheapest_path(costs: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The path from the first cell to the last by steps down, right, or both at once, of least total cost.

    Costs of any sign. A row is solved at once: within it, the best way to column j that entered the row at column k
    costs enter[k] + sum(row[k..j]), and with prefix sums the best k of each j is a running minimum.

    Args:
        costs: (N, M) float64, finite, N and M at least 1.

    Returns:
        Row and column of each cell on the path, in order.
    """
    count, width = costs.shape
    total = np.empty((count, width))
    total[0] = np.cumsum(costs[0])
    enter = np.empty(width)
    for row in range(1, count):
        above = total[row - 1]
        enter[0] = above[0]
        np.minimum(above[1:], above[:-1], out=enter[1:])
        reached = np.cumsum(costs[row])
        total[row] = reached + np.minimum.accumulate(enter - (reached - costs[row]))
    return _walk_back(total)


def _walk_back(total: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The path whose totals are the least, found from its end; where ways tie, the one to the left is taken."""
    row, column = total.shape[0] - 1, total.shape[1] - 1
    rows, columns = [row], [column]
    while row or column:
        both = total[row - 1, column - 1] if row and column else np.inf
        up = total[row - 1, column] if row else np.inf
        left = total[row, column - 1] if column else np.inf
        if left <= both and left <= up:
            column -= 1
        elif both <= up:
            row, column = row - 1, column - 1
        else:
            row -= 1
        rows.append(row)
        columns.append(column)
    return np.array(rows[::-1], dtype=np.intp), np.array(columns[::-1], dtype=np.intp)
