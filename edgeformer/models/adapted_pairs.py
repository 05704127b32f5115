"""Models of transformers with a tower for images and one for texts: CLIP (Radford et al. 2021, "Learning Transferable
Visual Models From Natural Language Supervision") and SigLIP (Zhai et al. 2023, "Sigmoid Loss for Language Image
Pre-Training").

Each tower is a part of transformers' own module and a program, or several, of a bundle. What compares their embeddings,
a factor and an addend, is the manifest's.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeformer.attention import APPROXIMATE_KERNELS, AttentionKernel
from edgeformer.attention.kernels import ScoreRange
from edgeformer.models.adapted import PREFIX, AdaptedConfig, Network, compare, told
from edgeformer.models.adapted_images import in_module_order, read_image_processor
from edgeformer.models.config import refusing
from edgeformer.models.family import Family, Program, ProgramOptions
from edgeformer.models.pooling import l2_normalize, weighted_sum
from edgeformer.models.score_range import sample_inputs, score_range
from edgeformer.models.text import TextEncoder
from edgeformer_runtime.bundle.manifest import TensorSpec
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.tasks.vision import PAD, ImagePreprocessing

if TYPE_CHECKING:
    from edgeformer.checkpoints.checkpoint import Checkpoint
    from edgeformer.models.architecture import Architecture

TASK = "image-text"
_TEXT, _IMAGE = "text.public.", "image.public."
"""Before the public names of each tower's weights."""
_OF_IMAGES = "vis"
"""What the names of the parts of a public module that see images begin with: vision_model, visual_projection."""
_NUMBERS = ("logit_scale", "logit_bias")
_LARGEST_ID_ENDS = 2
"""The `eos_token_id` of configs of old, that of no CLIP's tokenizer: transformers takes the largest id in its place."""
_WHOLE = 12
"""Tokens of the sample that `fit` compares."""


def is_pair(architecture: Architecture) -> bool:
    """Whether the class that a checkpoint was saved as gives features of images and of texts."""
    return all(hasattr(architecture.named, name) for name in ("get_text_features", "get_image_features"))


def _tower(public: nn.Module, of_images: bool) -> nn.Module:
    """A public module with the parts of one tower alone, which both share."""
    made = copy.copy(public)
    parts = {name: part for name, part in public.named_children() if name.startswith(_OF_IMAGES) == of_images}
    vars(made).update(_modules=parts, _parameters={})
    return made


class TextTower(Network, TextEncoder):
    """Texts to embeddings of L2 norm 1.

    A CLIP's text is its first end token, which sees all tokens before it and none behind, so padding behind it is
    nothing to it. A SigLIP's (`whole`) is the last position of all that there are, padding included.

    Attributes:
        longest: positions of the model.
        whole: every text takes all positions, as it was trained with its padding.
        end: the id of the token whose vector is the text's, 2: of the largest id; None: the public module pools.
    """

    positions: Tensor
    earlier: Tensor

    def __init__(self, public: nn.Module, attention: AttentionKernel, longest: int, whole: bool) -> None:
        super().__init__(public, attention)
        self.longest, self.whole = longest, whole
        end = getattr(getattr(public, "text_model", None), "eos_token_id", None)
        self.end: int | None = end if hasattr(public, "text_projection") else None
        self.register_buffer("positions", torch.arange(longest, dtype=torch.int32)[None], persistent=False)
        self.register_buffer("earlier", torch.tril(torch.ones(1, longest, longest), diagonal=-1), persistent=False)

    def forward(self, input_ids: Tensor) -> tuple[Tensor]:  # type: ignore[override]
        """input_ids (B, S) int32 to (embedding (B, D) float32,)."""
        inputs = {"input_ids": input_ids, "position_ids": self.positions[:, : input_ids.shape[1]]}
        if self.end is None:
            return (l2_normalize(self.call("get_text_features", **inputs).pooler_output),)
        named: Any = self.public
        hidden = self.call("text_model", **inputs).last_hidden_state
        return (l2_normalize(named.text_projection(weighted_sum(hidden, self._is_first_end(input_ids)))),)

    def _is_first_end(self, input_ids: Tensor) -> Tensor:
        """(B, S) int32 to (B, S) float32: 1 at the first end token, of a text without one at its first token.

        Comparisons and sums, where transformers searches a maximum and picks its row: every target has those, also in
        float16, and no index comes out of them.
        """
        seq_len = input_ids.shape[1]
        largest = self.end == _LARGEST_ID_ENDS
        end: Any = input_ids.amax(dim=1, keepdim=True) if largest else self.end
        is_end = torch.eq(input_ids, end).float()
        before = (is_end[:, None, :] * self.earlier[:, :seq_len, :seq_len]).sum(dim=2)
        first = is_end * functional.relu(1.0 - before)
        without = functional.relu(1.0 - is_end.sum(dim=1, keepdim=True))
        return torch.cat((first[:, :1] + without, first[:, 1:]), dim=1)

    def own(self, input_ids: Tensor) -> Tensor:
        """(B, S) to (B, D) as transformers computes it, with its own attention, masks, positions and pooling."""
        with self.eager():
            return _normalized(self.call("get_text_features", input_ids=input_ids.long()).pooler_output)


class ImageTower(Network):
    """Images to embeddings of L2 norm 1.

    Attributes:
        takes_bgr: the public module takes blue, green, red.
        factor, addend: from the cosine of two embeddings to a logit, once `pair_programs` has read them off weights.
    """

    factor, addend = 1.0, 0.0

    def __init__(self, public: nn.Module, attention: AttentionKernel, takes_bgr: bool) -> None:
        super().__init__(public, attention)
        self.takes_bgr = takes_bgr

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        """pixels (B, 3, H, W) float32 to (embedding (B, D) float32,)."""
        pixels = in_module_order(pixels, self.takes_bgr)
        return (l2_normalize(self.call("get_image_features", pixel_values=pixels).pooler_output),)

    def own(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, D) as transformers computes it."""
        given = pixels.flip(1) if self.takes_bgr else pixels
        with self.eager():
            return _normalized(self.call("get_image_features", pixel_values=given).pooler_output)


def _normalized(features: Tensor) -> Tensor:
    return functional.normalize(features, dim=-1)


class AdaptedPair(nn.Module):
    """A model of transformers in its two towers, and the numbers that compare their embeddings."""

    def __init__(self, public: nn.Module, attention: AttentionKernel, config: AdaptedConfig) -> None:
        super().__init__()
        for name in _NUMBERS:
            if hasattr(public, name):
                self.register_parameter(name, getattr(public, name))
        # A model with an addend is trained with a sigmoid, which makes it a SigLIP.
        whole = hasattr(public, "logit_bias")
        longest = config.max_position_embeddings
        self.text = TextTower(_tower(public, of_images=False), attention, longest, whole)
        self.image = ImageTower(_tower(public, of_images=True), attention, config.takes_bgr)
        self.named = type(public).__name__


def pair_family(architecture: Architecture) -> Family[AdaptedConfig]:
    """The record of a model with two towers, made for one checkpoint."""
    base = architecture.skeleton.base_model_prefix

    def parse(_: Mapping[str, Any]) -> AdaptedConfig:
        assert architecture.folder is not None
        preprocessing, takes_bgr = read_image_processor(architecture.folder)
        if preprocessing.crop == PAD:
            raise InputError(
                f"a {architecture.model_type} takes images that are padded, which no bundle of its task does"
            )
        config = replace(architecture.parse(), preprocessing=preprocessing, takes_bgr=takes_bgr)
        if not hasattr(architecture.skeleton, "logit_bias"):
            return config
        # Its texts see their padding, which is the tokenizer's, whatever the config says.
        with refusing("transformers cannot build its tokenizer:"):
            tokenizer = architecture.library.AutoTokenizer.from_pretrained(
                architecture.folder, local_files_only=True, trust_remote_code=False
            )
        pad_token_id = tokenizer.pad_token_id
        return replace(config, pad_token_id=config.pad_token_id if pad_token_id is None else pad_token_id)

    def build(config: AdaptedConfig, task: str, num_labels: int, attention: AttentionKernel) -> nn.Module:  # noqa: ARG001
        if attention in APPROXIMATE_KERNELS.values():
            raise InputError(f"a {architecture.model_type} is transformers' own module: choose an exact kernel")
        with refusing(f"transformers cannot build a {architecture.model_type}:"):
            made = architecture.named._from_config(architecture.config, attn_implementation="eager")
        return AdaptedPair(made, attention, config).eval()

    def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        own = architecture.rename(state)
        return {_placed(name.removeprefix(PREFIX).removeprefix(f"{base}.")): each for name, each in own.items()}

    def publish(state: Mapping[str, Tensor], _: AdaptedConfig) -> dict[str, Tensor]:
        return {name.removeprefix(_TEXT).removeprefix(_IMAGE): each for name, each in state.items()}

    blocks = {
        part.rpartition(".layers.")[0]
        for part, _ in architecture.skeleton.named_modules()
        if part.endswith(".layers.0")
    }
    return replace(
        architecture.family(),
        tasks=(TASK,),
        parse_config=parse,
        build=build,
        rename=rename,
        publish=publish,
        unused=("*.position_ids",),
        programs=pair_programs,
        blocks=tuple(f"public.{part}.layers.*" for part in sorted(blocks)),
        fit=fit_pair,
    )


def _placed(name: str) -> str:
    """Our name of a public weight."""
    return name if name in _NUMBERS else (_IMAGE if name.startswith(_OF_IMAGES) else _TEXT) + name


def pair_programs(module: nn.Module, config: AdaptedConfig, options: ProgramOptions) -> tuple[Program, ...]:
    """The program "image", and one `seq_<S>` for each length of a text.

    Raises:
        InputError: a length that the model does not have, or at which it answers otherwise than transformers.
    """
    assert isinstance(module, AdaptedPair)
    text, image = module.text, module.image
    numbers = {name: float(each) for name, each in module.state_dict().items() if name in _NUMBERS}
    image.factor, image.addend = math.exp(numbers.get("logit_scale", 0.0)), numbers.get("logit_bias", 0.0)
    lengths = (text.longest,) if text.whole else tuple(sorted(set(options.seq_lens)))
    for length in lengths:
        if not 2 <= length <= text.longest:
            raise InputError(f"sequence length must be between 2 and this model's {text.longest}, found {length}")
        # Makes the constants of each length, too, which an export cannot.
        _check_text(text, config, length, module.named)
    pixels = TensorSpec("pixels", "float32", _shape(config))
    with torch.no_grad():
        (made,) = image(torch.zeros(pixels.shape))
    outputs = (TensorSpec("embedding", "float32", tuple(made.shape)),)
    return (
        Program("image", image, (pixels,), outputs, part="image."),
        *(
            Program(f"seq_{length}", text, (TensorSpec("input_ids", "int32", (1, length)),), outputs, part="text.")
            for length in lengths
        ),
    )


@torch.no_grad()
def fit_pair(module: nn.Module, config: AdaptedConfig) -> None:
    """Compare both towers, which have their weights, with transformers' own computation.

    Raises:
        InputError: they differ.
    """
    assert isinstance(module, AdaptedPair)
    pixels = torch.randn(_shape(config), generator=torch.Generator().manual_seed(0))
    with told(module.named):
        expected = module.image.own(pixels)
    compare(module.named, expected, lambda: module.image(pixels)[0])
    text = module.text
    _check_text(text, config, text.longest if text.whole else min(_WHOLE, text.longest), module.named)


@torch.no_grad()
def _check_text(tower: TextTower, config: AdaptedConfig, length: int, named: str) -> None:
    """Compare texts of all and of half of a length with what transformers computes of them without their padding."""
    generator = torch.Generator().manual_seed(0)
    for part in (length, max(2, length // 2)):
        ids = torch.randint(config.vocab_size, (1, length), generator=generator, dtype=torch.int32)
        if tower.end is not None and 0 <= tower.end < config.vocab_size:
            ids[:, part - 1] = tower.end
        ids[:, part:] = config.pad_token_id
        with told(named):
            expected = tower.own(ids if tower.whole else ids[:, :part])
        compare(named, expected, partial(_only, tower, ids), f"on texts of {part} tokens with padding up to {length}")


def _only(tower: TextTower, ids: Tensor) -> Tensor:
    found: Tensor = tower(ids)[0]
    return found


def _shape(config: AdaptedConfig) -> tuple[int, int, int, int]:
    assert isinstance(config.preprocessing, ImagePreprocessing)
    return 1, 3, config.preprocessing.height, config.preprocessing.width


def pair_scores(module: nn.Module, checkpoint: Checkpoint) -> ScoreRange:
    """The range of the text tower's attention scores; images and whole texts have no mask."""
    assert isinstance(module, AdaptedPair)
    if module.text.whole:
        return ScoreRange()
    inputs = sample_inputs(checkpoint.config, checkpoint.tokenizer_json)
    return score_range(module.text, {"input_ids": inputs["input_ids"]})
