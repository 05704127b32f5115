"""A program: one exportable forward with static shapes. Families make programs, converters lower them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgeformer_runtime.bundle.manifest import TensorSpec
from edgeformer_runtime.bundle.specs import HOST_STATE, STATES
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.registry import check_choice

# Options are checked against this module's names before torch, which takes seconds, is imported.
if TYPE_CHECKING:
    from torch import Tensor, nn

DTYPES = ("float32", "int32")
"""Of inputs and outputs; torch has them under the same names."""
DEFAULT_SEQ_LENS = (8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Of texts, in tokens. Orders to an assistant have 12 on average, sentences of reviews 26."""
LONGEST_DEFAULT = DEFAULT_SEQ_LENS[-1:]
POSITIONS_PER_SECOND = 50
"""Of the encoders of speech models: two frames of 10 ms each."""
DEFAULT_AUDIO_POSITIONS = tuple(range(125, 1501, 125))
"""Every 2.5 seconds to 30."""

TAIL_WINDOW, FULL_WINDOW = "tail", "full"
WINDOWS = (TAIL_WINDOW, FULL_WINDOW)
MATMUL, ELEMENTWISE = "matmul", "elementwise"
TOKEN_MATMULS = (MATMUL, ELEMENTWISE)

MIN_MAX, PERCENTILE, ENTROPY = METHODS = ("min-max", "percentile", "entropy")
"""How a range is taken from the values of an activation: all of them, all but the outermost, or those whose histogram
loses the least information (Migacz 2017, "8-bit Inference with TensorRT")."""


@dataclass(frozen=True)
class ProgramOptions:
    """What a family is asked to make programs of. Each family reads what concerns its tasks.

    Attributes:
        seq_lens: of texts: the tokens of each bucket.
        audio_positions: of speech: the encoder's positions of each bucket; one is 20 ms of audio.
        window: of speech: "tail" (the audio that is there, and silence computed in advance for the rest of the window)
            or "full" (always the whole window, as the public model does; one bucket, whatever `audio_positions`).
        prefill_tokens: of speech: tokens that the decoder takes at once.
        decoder_state: of speech: who keeps the decoder's self-attention cache, "host" or "program".
        token_matmul: of speech: how the query of one token meets the caches, "matrix-products" or "sums" of what is
            multiplied element by element: equal but for rounding.
    """

    seq_lens: tuple[int, ...] = LONGEST_DEFAULT
    audio_positions: tuple[int, ...] = DEFAULT_AUDIO_POSITIONS
    window: str = TAIL_WINDOW
    prefill_tokens: int = 8
    decoder_state: str = HOST_STATE
    token_matmul: str = MATMUL

    def __post_init__(self) -> None:
        for value, choices, what in (
            (self.window, WINDOWS, "window"),
            (self.decoder_state, STATES, "decoder state"),
            (self.token_matmul, TOKEN_MATMULS, "kind of products"),
        ):
            check_choice(value, choices, what)
        if self.prefill_tokens < 2:
            raise InputError(f"expected at least 2 tokens of prefill, found {self.prefill_tokens}")
        if not self.audio_positions or min(self.audio_positions) < 1:
            raise InputError(f"expected audio positions of at least 1, found {list(self.audio_positions)}")


@dataclass(frozen=True)
class Program:
    """An exportable forward and the names by which every target knows its inputs and outputs.

    `module(*inputs)` takes tensors in the order of `inputs` and returns a tuple in the order of `outputs`.
    Its parameters and buffers are contiguous float32 (a converter may export other strides wrongly).
    `calibration` holds inputs as the model will meet them, a tuple each, for static quantization; empty: none given.
    `calibration_method` is how ranges are taken from them (`METHODS`).
    `layer_formats` says, for the precision `mixed`, the weight format of each quantizable layer by its name in `module`
    (`edgeformer.convert.layer_plan`); empty: there is no plan.
    `any_length` says that the module takes inputs of any length in dimension 1, from 2 up to this program's, as a file
    with a symbolic size can: programs that say so differ in nothing but that length.
    `alike` is one name for programs that differ in sizes and in what their modules' buffers hold, and in nothing else,
    so that a converter may make some of them of others; empty: there is no other such program.
    `part` is what stands before the names in `module` in the whole model: "decoder." where it is that part alone.
    """

    name: str
    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    calibration: tuple[tuple[Tensor, ...], ...] = ()
    calibration_method: str = MIN_MAX
    layer_formats: Mapping[str, str] = field(default_factory=dict)
    any_length: bool = False
    alike: str = ""
    part: str = ""

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Inputs of the right dtypes and shapes, all ones: enough to trace the program."""
        import torch

        return tuple(torch.ones(spec.shape, dtype=getattr(torch, spec.dtype)) for spec in self.inputs)
