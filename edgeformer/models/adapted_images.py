"""Image models of transformers, and their image processors in the terms of a bundle.

No processor is on a list: what its fields may mean is tried, and the meaning that gives the processor's own pixels is
taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from edgeformer.attention import AttentionKernel
from edgeformer.models.adapted import AdaptedConfig, Network, compare, told
from edgeformer.models.config import refusing
from edgeformer.models.family import Program, ProgramOptions
from edgeformer_runtime.bundle.manifest import TensorSpec
from edgeformer_runtime.bundle.specs import ImagePreprocessing
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.image import ImageEncoder

# The models.


def image_vector(answer: Any) -> Tensor:
    """What a module without a head says of an image as a whole, (B, D).

    Its own projection or pooled vector, where it has one; else the first token, or the mean over places.
    """
    for name in ("image_embeds", "pooler_output"):
        if answer.get(name) is not None:
            pooled: Tensor = answer[name]
            return pooled.flatten(1)
    hidden: Tensor = answer["last_hidden_state"]
    return hidden[:, 0] if hidden.dim() == 3 else hidden.mean((2, 3))


IMAGE_OUTPUTS: dict[str, tuple[str, Callable[[Any], Tensor]]] = {
    "image-classification": ("logits", lambda answer: answer["logits"]),
    "image-embedding": ("embedding", image_vector),
}
"""By task: the name of the program's output, and what it is of the public module's answer."""


class AdaptedImageModel(nn.Module):
    """An image model of transformers. `takes_bgr`: its public module takes blue, green, red."""

    def __init__(self, public: nn.Module, task: str, attention: AttentionKernel, takes_bgr: bool = False) -> None:
        super().__init__()
        self.adapted = Network(public, attention)
        self.output_name, self.taken = IMAGE_OUTPUTS[task]
        self.takes_bgr = takes_bgr

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        """pixels (B, 3, H, W) float32 to (logits (B, L) or an embedding (B, D) float32,)."""
        if self.takes_bgr:
            # Slices and a concatenation, which the tools of all targets lower; a reversal is an operator of its own.
            pixels = torch.cat((pixels[:, 2:], pixels[:, 1:2], pixels[:, :1]), dim=1)
        return (self.taken(self.adapted.call(pixel_values=pixels)),)


def image_programs(module: nn.Module, config: AdaptedConfig, options: ProgramOptions) -> tuple[Program, ...]:  # noqa: ARG001
    """The one program "image"."""
    assert isinstance(module, AdaptedImageModel)
    pixels = TensorSpec("pixels", "float32", _shape(config))
    with torch.no_grad():
        (given,) = module(torch.zeros(pixels.shape))
    output = TensorSpec(module.output_name, "float32", tuple(given.shape))
    return (Program("image", module, (pixels,), (output,)),)


@torch.no_grad()
def fit_image(module: nn.Module, config: AdaptedConfig) -> None:
    """Compare an image module that has its weights with transformers' own computation.

    Raises:
        InputError: they differ.
    """
    assert isinstance(module, AdaptedImageModel)
    pixels = torch.randn(_shape(config), generator=torch.Generator().manual_seed(0))
    network, name = module.adapted, type(module.adapted.public).__name__
    with told(name), network.eager():
        expected = module.taken(network.call(pixel_values=pixels.flip(1) if module.takes_bgr else pixels))
    compare(name, expected, lambda: module(pixels)[0])


def _shape(config: AdaptedConfig) -> tuple[int, int, int, int]:
    assert isinstance(config.preprocessing, ImagePreprocessing)
    return 1, 3, config.preprocessing.height, config.preprocessing.width


# The processors.


PROCESSOR_FILE = "preprocessor_config.json"
_JOINT_FILE = "processor_config.json"
"""Where newer checkpoints of several processors have it."""

_FILTERS = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers."""
_STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb", "do_flip_channel_order")
"""Fields that may be true."""
MAX_SIDE = 4096
"""Pixels that a stranger's file may ask for."""
_LEAST_CROP, _LEAST_FACTOR, _LEAST_STD = 0.25, 1e-4, 1e-4
_CROP_PCT = 224 / 256
"""Of a side, what is left of it where nothing else is said."""
_SAMPLES = ((61, 40), (38, 59), (20, 20))
"""Width and height: landscape and portrait whose crops lie between two pixels, and small; factors of them are added."""
_TOLERANCE = 1e-5
"""Of pixels: less than the smallest step of an 8-bit value."""


def read_image_processor(folder: Path) -> tuple[ImagePreprocessing, bool]:
    """What a folder's image processor does to an image.

    Args:
        folder: the checkpoint's.

    Returns:
        The bundle's preprocessing, whose channels are red, green, blue; and whether the model takes them reversed.

    Raises:
        InputError: names the field that a bundle cannot have.
    """
    processor = _load(folder)
    fields: dict[str, Any] = {**processor.to_dict(), "image_processor_type": type(processor).__name__}
    for name, value in fields.items():
        sizes = _plain(value).values() if isinstance(_plain(value), Mapping) else (value,)
        if any(isinstance(each, int | float) and not each <= MAX_SIDE for each in sizes):
            raise _refusal(fields, name, f"at most {MAX_SIDE}")
    if not _is_number(fields.get("crop_pct") or 1, _LEAST_CROP, 1):
        raise _refusal(fields, "crop_pct", f"from {_LEAST_CROP} to 1")
    if fields.get("do_resize") is not True:
        raise _refusal(fields, "do_resize", "true")
    if not isinstance(fields.get("resample"), int) or fields["resample"] not in _FILTERS:
        raise _refusal(fields, "resample", "2 (bilinear) or 3 (bicubic)")
    mean, std = _normalisation(fields)
    reversed_ = fields.get("do_flip_channel_order") is True
    tried = [
        ImagePreprocessing(side, side, square, _FILTERS[fields["resample"]], crop, mean, std)
        for side, crop, square in dict.fromkeys(_sizes(fields))
    ]
    if not tried:
        raise _refusal(fields, "size", "a square's height and width, or a shortest_edge and what is cropped of it")
    for spec in tried:
        if _same_pixels(processor, spec, reversed_):
            return spec, reversed_
    largest, crop = tried[0].resize_short_side, _side(fields.get("crop_size"))
    if fields.get("do_center_crop") and (crop is None or crop > largest):
        raise _refusal(fields, "crop_size", f"a square of at most {largest} pixels")
    other = next((name for name, value in fields.items() if value is True and name not in _STEPS), None)
    if other is not None:
        raise _refusal(fields, other, "false: a bundle resizes, crops, scales and normalises")
    if not fields.get("do_center_crop") and "shortest_edge" in _plain(fields.get("size")):
        raise _refusal(fields, "do_center_crop", "true where size is a shortest_edge: a bundle's images have one size")
    raise _refusal(fields, "image_processor_type", "one that resizes, crops, scales and normalises, and nothing else")


def _load(folder: Path) -> Any:
    """transformers' own, over Pillow."""
    if not any((folder / name).is_file() for name in (PROCESSOR_FILE, _JOINT_FILE)):
        raise InputError(f"{PROCESSOR_FILE} is not there, and says what the model's pixels are: expected it")
    from transformers import AutoImageProcessor

    with refusing(f"{PROCESSOR_FILE} cannot be read as an image processor:"):
        return AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True, trust_remote_code=False)


def _refusal(fields: Mapping[str, Any], field: str, expected: str) -> InputError:
    return InputError(f"{PROCESSOR_FILE}: {field} is {shorten(_plain(fields.get(field)))}: expected {expected}")


def _plain(size: Any) -> Any:
    """A size as the file has it."""
    if hasattr(size, "items"):
        return {key: value for key, value in size.items() if value is not None}
    return size


def _is_number(value: Any, least: float, most: float) -> bool:
    return isinstance(value, int | float) and least <= value <= most


def _side(size: Any) -> int | None:
    """Of a square; None: it is none."""
    found = _plain(size)
    square = isinstance(found, Mapping) and set(found) == {"height", "width"} and found["height"] == found["width"]
    return found["height"] if square and type(found["height"]) is int else None


def _normalisation(fields: Mapping[str, Any]) -> tuple[Any, Any]:
    """Mean and std of values scaled to 0..1, whatever the processor scales them to."""
    factor: Any = fields.get("rescale_factor") if fields.get("do_rescale") else 1.0
    if not _is_number(factor, _LEAST_FACTOR, 1):
        raise _refusal(fields, "rescale_factor", f"from {_LEAST_FACTOR} to 1")
    scale = 255 * float(factor)
    made = []
    for field, plain in (("image_mean", 0.0), ("image_std", 1.0)):
        values = fields.get(field) if fields.get("do_normalize") else [plain] * 3
        if (
            not isinstance(values, list | tuple)
            or len(values) != 3
            or not all(_is_number(each, _LEAST_STD if plain else -MAX_SIDE, MAX_SIDE) for each in values)
        ):
            raise _refusal(fields, field, "three numbers" + (" above 0" if plain else ""))
        # A factor of 1/255 leaves the numbers as they are, to the last digit.
        made.append(tuple(float(each) if abs(scale - 1) < 1e-9 else each / scale for each in values))
    return made[0], made[1]


def _sizes(fields: Mapping[str, Any]) -> Iterator[tuple[int, str, int]]:
    """What size, crop_size and crop_pct may mean: pixels of the model's input, the crop, and pixels before it."""
    size = _plain(fields.get("size")) or {}
    square, cut = _side(size), _side(fields.get("crop_size"))
    if square is not None:
        if square > 0:
            yield square, "squash", square
            if cut and 0 < cut <= square:
                yield cut, "squash", square
        return
    short = size.get("shortest_edge")
    if set(size) != {"shortest_edge"} or type(short) is not int or short < 1:
        return
    part = fields.get("crop_pct") or _CROP_PCT
    for resized in (short, int(short / part), int(256 / 224 * short)):
        for side in (cut, short):
            if side and 0 < side <= resized:
                yield side, "center-floor", resized
    yield short, "squash", short


def _same_pixels(processor: Any, spec: ImagePreprocessing, is_reversed: bool) -> bool:
    """Whether a specification gives a processor's own pixels, of images whose crops tell meanings apart."""
    generator = np.random.default_rng(0)
    encode = ImageEncoder(spec)
    for width, height in _SAMPLES:
        levels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        image = Image.fromarray(levels).resize((width * 5, height * 5), Image.Resampling.BICUBIC)
        try:
            expected = np.asarray(processor(image, return_tensors="np")["pixel_values"])
        except Exception:  # of any processor
            return False
        found = encode(image)
        if is_reversed:
            found = found[:, ::-1]
        if found.shape != expected.shape or np.abs(found - expected).max() > _TOLERANCE / min(spec.std):
            return False
    return True
