"""Image models of transformers, and their image processors in the terms of a bundle.

No processor is on a list: what its fields may mean is tried, and the meaning that gives the processor's own pixels is
taken.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from edgeformer.attention import AttentionKernel
from edgeformer.models.adapted import AdaptedConfig, Network, compare, told
from edgeformer.models.config import refusing
from edgeformer.models.family import Program, ProgramOptions
from edgeformer_runtime.bundle.manifest import TensorSpec
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.image import ImageEncoder
from edgeformer_runtime.tasks.vision import (
    BOXES,
    COLUMNS,
    IMAGE_INPUT,
    IMAGE_PROGRAM,
    LOGITS,
    MAX_PADDED_SIDE,
    PAD,
    ROWS,
    ImagePreprocessing,
    image_inputs,
)

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


IMAGE_OUTPUTS: dict[str, tuple[tuple[str, ...], Callable[[Any], tuple[Tensor, ...]]]] = {
    "image-classification": (("logits",), lambda answer: (answer["logits"],)),
    "image-embedding": (("embedding",), lambda answer: (image_vector(answer),)),
    "image-segmentation": (("logits",), lambda answer: (answer["logits"],)),
    "object-detection": ((LOGITS, BOXES), lambda answer: (answer["logits"], answer["pred_boxes"])),
}
"""By task: the names of the program's outputs, and what they are of the public module's answer."""


def in_module_order(pixels: Tensor, takes_bgr: bool) -> Tensor:
    """Pixels (B, 3, H, W) of red, green, blue as a public module takes them."""
    # Slices and a concatenation, which the tools of all targets lower; a reversal is an operator of its own.
    return torch.cat((pixels[:, 2:], pixels[:, 1:2], pixels[:, :1]), dim=1) if takes_bgr else pixels


class AdaptedImageModel(nn.Module):
    """An image model of transformers. `takes_bgr`: its public module takes blue, green, red.

    `mask_rows` and `mask_columns` are the rows and columns of the pixels that a mask has for the public module, as
    `settle` finds them; None: all.
    """

    mask_rows: Tensor | None
    mask_columns: Tensor | None

    def __init__(self, public: nn.Module, task: str, attention: AttentionKernel, takes_bgr: bool = False) -> None:
        super().__init__()
        self.adapted = Network(public, attention)
        self.output_names, self.taken = IMAGE_OUTPUTS[task]
        self.takes_bgr = takes_bgr
        self.takes_mask = "pixel_mask" in inspect.signature(public.forward).parameters
        self.register_buffer("mask_rows", None, persistent=False)
        self.register_buffer("mask_columns", None, persistent=False)
        self.is_settled = False

    @torch.no_grad()
    def settle(self, *inputs: Tensor) -> None:
        """Leave no resize of constants or masks to the tools of export, of which each does some in a way of its own.

        Parts that resize what they have learned, as positions, give the result as a constant. A mask is given to the
        public module in the size to which it shrinks it.
        """
        if self.is_settled:
            return
        self.is_settled = True
        with _Resizes() as seen, _without_images(self.adapted.public, seen) as constant:
            self.own(*inputs)
        for parent, name, value in constant:
            parent._modules[name] = Constant(value)
        size = tuple(inputs[0].shape[-2:])
        shrunk = {to for of, to in seen.found if of == size}
        if not self.takes_mask or len(inputs) == 1:
            return
        if len(shrunk) != 1:
            raise InputError(f"it needs its mask in the sizes {shorten(sorted(shrunk))}: expected one")
        for name, side, count in zip(("mask_rows", "mask_columns"), inputs[1:], shrunk.pop(), strict=True):
            places = torch.arange(side.shape[1], dtype=torch.float32)[None, None]
            setattr(self, name, functional.interpolate(places, size=count)[0, 0].int())

    def forward(self, pixels: Tensor, rows: Tensor | None = None, columns: Tensor | None = None) -> tuple[Tensor, ...]:
        """pixels (B, 3, H, W), rows (B, H) and columns (B, W) of padded images, float32, to the outputs, float32."""
        return self.taken(self.adapted.call(**self._named(pixels, rows, columns)))

    def own(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The same as transformers computes it."""
        with self.adapted.eager():
            return self.taken(self.adapted.call(**self._named(*inputs)))

    def _named(self, pixels: Tensor, rows: Tensor | None = None, columns: Tensor | None = None) -> dict[str, Tensor]:
        """What the public module takes: behind an image's edges zeros, which no pixel of a bundle's is."""
        pixels = in_module_order(pixels, self.takes_bgr)
        if rows is None or columns is None:
            return {"pixel_values": pixels}
        pixels = pixels * (rows[:, None, :, None] * columns[:, None, None, :])
        if not self.takes_mask:
            return {"pixel_values": pixels}
        if self.mask_rows is not None and self.mask_columns is not None:
            rows, columns = rows.index_select(1, self.mask_rows), columns.index_select(1, self.mask_columns)
        return {"pixel_values": pixels, "pixel_mask": rows[:, :, None] * columns[:, None, :]}


class Constant(nn.Module):
    """In place of a part that gives the same whatever it is asked."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value.contiguous(), persistent=False)

    def forward(self, *_: Any, **__: Any) -> Tensor:
        """The value."""
        return self.value


_PLAIN = (nn.Parameter, int, float, str, type(None), torch.dtype, torch.device)
"""What a part may be called with that tells it nothing of an image."""


class _Resizes(TorchFunctionMode):
    """Within the context, keeps from which sizes to which ones anything is resized."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        if func is functional.interpolate:
            self.found.append((tuple(args[0].shape[2:]), tuple(answer.shape[2:])))
        return answer


@contextmanager
def _without_images(public: nn.Module, seen: _Resizes) -> Iterator[list[tuple[nn.Module, str, Tensor]]]:
    """Within the context, finds the parts that resize something and are called with nothing but parameters.

    Yields:
        A list of each part's parent, its name there, and what it gave; complete behind the context.
    """
    found: list[tuple[nn.Module, str, Tensor]] = []
    begun: list[int] = []

    def before(_: nn.Module, __: Any) -> None:
        begun.append(len(seen.found))

    def after(part: nn.Module, args: Any, named: Any, answer: Any) -> None:
        resized = len(seen.found) > begun.pop()
        known = all(isinstance(each, _PLAIN) for each in tree_leaves((args, named)))
        if resized and known and isinstance(answer, Tensor):
            for parent in public.modules():
                found.extend((parent, name, answer) for name, each in parent.named_children() if each is part)

    parts = [part for part in public.modules() if part is not public]
    handles = [part.register_forward_pre_hook(before) for part in parts]
    handles += [part.register_forward_hook(after, with_kwargs=True, always_call=True) for part in parts]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def image_programs(module: nn.Module, config: AdaptedConfig, options: ProgramOptions) -> tuple[Program, ...]:  # noqa: ARG001
    """The one program "image"."""
    assert isinstance(module, AdaptedImageModel)
    specs = _input_specs(config)
    ones = [torch.ones(each.shape) for each in specs]
    module.settle(*ones)
    with torch.no_grad():
        given = module(*ones)
    outputs = (
        TensorSpec(name, "float32", tuple(each.shape)) for name, each in zip(module.output_names, given, strict=True)
    )
    return (Program(IMAGE_PROGRAM, module, specs, tuple(outputs)),)


@torch.no_grad()
def fit_image(module: nn.Module, config: AdaptedConfig) -> None:
    """Compare an image module that has its weights with transformers' own computation.

    Raises:
        InputError: they differ.
    """
    assert isinstance(module, AdaptedImageModel)
    pixels, *sides = _input_specs(config)
    inputs = [torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))]
    for part, (_, side) in zip((3, 5), (each.shape for each in sides), strict=False):  # of padded images two thirds
        inputs.append((torch.arange(side) < max(1, side * part // 6)).float()[None])
    name = type(module.adapted.public).__name__
    with told(name):
        expected = module.own(*inputs)
        module.settle(*inputs)
    try:
        _compare_all(module, name, expected, inputs)
    except InputError:
        if not module.takes_mask:
            raise
        module.adapted.whole_masks = True
        _compare_all(module, name, expected, inputs)


def _compare_all(module: AdaptedImageModel, name: str, expected: Sequence[Tensor], inputs: Sequence[Tensor]) -> None:
    with told(name):
        found = module(*inputs)
    for output, own in zip(expected, found, strict=True):
        compare(name, output, partial(torch.clone, own))


def _input_specs(config: AdaptedConfig) -> tuple[TensorSpec, ...]:
    assert isinstance(config.preprocessing, ImagePreprocessing)
    return image_inputs(config.preprocessing)


# The processors.


PROCESSOR_FILE = "preprocessor_config.json"
_JOINT_FILE = "processor_config.json"
"""Where newer checkpoints of several processors have it."""

_FILTERS = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers."""
_STEPS = (
    *("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb", "do_flip_channel_order"),
    *("do_pad", "do_convert_annotations"),
)
"""Fields that may be true."""
_MULTIPLES = (1, 16, 32)
"""What processors that keep an image's aspect ratio round its sides down to multiples of."""
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
    processor = load_image_processor(folder)
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
    tried += _padded(fields, mean, std)
    if not tried:
        expected = "a square's height and width, a shortest_edge and what is cropped of it, or a longest_edge beside it"
        raise _refusal(fields, "size", expected)
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


def load_image_processor(folder: Path) -> Any:
    """transformers' own of a checkpoint's folder, over Pillow; InputError where there is none that can be read."""
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


def _padded(fields: Mapping[str, Any], mean: Any, std: Any) -> Iterator[ImagePreprocessing]:
    """What a shortest_edge, a longest_edge and a pad_size may mean; without the latter, the smallest square."""
    size, given = _plain(fields.get("size")) or {}, _plain(fields.get("pad_size"))
    if set(size) != {"shortest_edge", "longest_edge"} or not all(type(each) is int for each in size.values()):
        return
    short, longest = size["shortest_edge"], size["longest_edge"]
    if not 1 <= short <= longest <= MAX_PADDED_SIDE:
        raise _refusal(fields, "size", f"1 <= shortest_edge <= longest_edge <= {MAX_PADDED_SIDE}")
    if given is not None and not (set(given) == {"height", "width"} and min(given.values()) >= longest):
        raise _refusal(fields, "pad_size", "null, or a height and a width of at least the longest_edge")
    for multiple in _MULTIPLES:
        if multiple <= short:
            square = longest - longest % multiple
            height, width = (square, square) if given is None else (given["height"], given["width"])
            yield ImagePreprocessing(
                *(height, width, short, _FILTERS[fields["resample"]], PAD, mean, std),
                resize_long_side=longest,
                multiple_of=multiple,
            )


def _same_pixels(processor: Any, spec: ImagePreprocessing, is_reversed: bool) -> bool:
    """Whether a specification gives a processor's own pixels, of images whose crops tell meanings apart."""
    generator = np.random.default_rng(0)
    encode = ImageEncoder(spec)
    padded = {"do_pad": True, "pad_size": {"height": spec.height, "width": spec.width}} if spec.crop == PAD else {}
    for width, height in _SAMPLES:
        levels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        image = Image.fromarray(levels).resize((width * 5, height * 5), Image.Resampling.BICUBIC)
        try:
            expected = np.asarray(processor(image, return_tensors="np", **padded)["pixel_values"])
        except Exception:  # of any processor
            return False
        inputs, _ = encode.inputs(image)
        found = inputs[IMAGE_INPUT]
        if spec.crop == PAD:
            found = found * inputs[ROWS][:, None, :, None] * inputs[COLUMNS][:, None, None, :]
        if is_reversed:
            found = found[:, ::-1]
        if found.shape != expected.shape or np.abs(found - expected).max() > _TOLERANCE / min(spec.std):
            return False
    return True
