"""What a vision model expects of its pixels, as data: the part of image preprocessing that a manifest holds."""

from __future__ import annotations

from dataclasses import dataclass

from edgeformer_runtime.errors import InputError

INTERPOLATIONS = ("bicubic", "bilinear")
CROPS = ("center", "squash")


@dataclass(frozen=True)
class ImagePreprocessing:
    """What happens to an image before the model: resize, crop, scale to 0..1, normalise. All sizes in pixels.

    Attributes:
        height: rows of the model's input.
        width: columns of the model's input.
        resize_short_side: what the image is resized to before its center is cropped: the short side where `crop` is
            "center" (the aspect ratio is kept), both sides where it is "squash" (the aspect ratio is lost).
        interpolation: "bicubic" or "bilinear", both with a filter that widens when it shrinks (antialiasing).
        crop: "center" or "squash".
        mean: per channel, of values scaled to 0..1.
        std: per channel, of values scaled to 0..1.
        channels: order of the channels; only "RGB".
        layout: order of the model's input; only "NCHW".
    """

    height: int
    width: int
    resize_short_side: int
    interpolation: str
    crop: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channels: str = "RGB"
    layout: str = "NCHW"
    kind: str = "image"

    def __post_init__(self) -> None:
        for name, value, valid in (
            ("interpolation", self.interpolation, INTERPOLATIONS),
            ("crop", self.crop, CROPS),
            ("channels", self.channels, ("RGB",)),
            ("layout", self.layout, ("NCHW",)),
            ("kind", self.kind, ("image",)),
        ):
            if value not in valid:
                raise InputError(f"image preprocessing: {name} must be one of {', '.join(valid)}, found {value!r}")
        if min(self.height, self.width) < 1 or self.resize_short_side < max(self.height, self.width):
            raise InputError(
                f"image preprocessing: expected 1 <= height, width <= resize_short_side, found {self.height}, "
                f"{self.width} and {self.resize_short_side}"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or not all(value > 0 for value in self.std):
            raise InputError(
                f"image preprocessing: expected three means and three std above 0, found {self.mean} and {self.std}"
            )
