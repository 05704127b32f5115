"""Names beside the points of a picture, so that none lies on another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FONT_POINTS = 7.0
LONGEST = 34
_WIDTH, _HEIGHT = 0.56, 1.25
"""Of a letter and of a line, in units of the font's size: what a sans serif takes at most, nearly."""
_GAP_POINTS = 6.0

Box = tuple[float, float, float, float]
"""Left, bottom, right, top in points."""


def short_names(names: Sequence[str]) -> list[str]:
    """Names without what all begin with, up to a dot, a slash or a colon; long ones are cut in the middle."""
    first, last = min(names), max(names)
    # What these two begin with, all in between do; a single name is shown whole.
    count = next((index for index, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), None)
    common = "" if first == last else first[: len(first) if count is None else count]
    start = max(common.rfind(mark) for mark in "./:") + 1
    return [_cut(name[start:].strip()) for name in names]


def _cut(name: str) -> str:
    half = (LONGEST - 3) // 2
    return name if len(name) <= LONGEST else f"{name[:half]}...{name[-half:]}"


def label_points(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Write each name (x, y, name) beside its point, where it meets the least of what is there; the layout is done."""
    figure = axes.figure
    assert figure is not None
    scale = 72 / figure.dpi
    inside = axes.get_window_extent()
    frame: Box = (inside.x0 * scale, inside.y0 * scale, inside.x1 * scale, inside.y1 * scale)
    places = [tuple(scale * axes.transData.transform((x, y))) for x, y, _ in points]
    taken: list[Box] = [(x - 4, y - 4, x + 4, y + 4) for x, y in places]
    for (x, y), (_, _, name) in sorted(zip(places, points, strict=True), key=lambda pair: pair[0][::-1]):
        box = min(_candidates(x, y, name), key=lambda each: _cost(each, (x, y), taken, frame))
        taken.append(box)
        left, bottom = box[0] - x, (box[1] + box[3]) / 2 - y
        moved = abs(bottom) > _HEIGHT * FONT_POINTS
        axes.annotate(
            name,
            (x / scale, y / scale),
            xycoords="figure pixels",
            xytext=(left, bottom),
            textcoords="offset points",
            va="center",
            fontsize=FONT_POINTS,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "alpha": 0.5} if moved else None,
        ).set_in_layout(False)


def _candidates(x: float, y: float, name: str) -> list[Box]:
    """Right and left of the point, and lines above and below."""
    width, height = _WIDTH * FONT_POINTS * len(name), _HEIGHT * FONT_POINTS
    return [
        (left, y + lines * height - height / 2, left + width, y + lines * height + height / 2)
        for lines in (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5)
        for left in (x + _GAP_POINTS, x - _GAP_POINTS - width, x - width / 2)
        if lines or left != x - width / 2
    ]


def _cost(box: Box, point: tuple[float, float], taken: Sequence[Box], frame: Box) -> float:
    """What of a name would lie on others or outside the frame, and a little for its distance."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    outside = area - _shared(box, frame)
    distance = abs((box[1] + box[3]) / 2 - point[1]) + (box[0] < point[0]) * 0.5
    return 10 * outside + sum(_shared(box, other) for other in taken) + 0.1 * distance


def _shared(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)
