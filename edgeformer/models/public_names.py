"""The spellings of parameter names in public BERT-like checkpoints, brought to one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor

from edgeformer_runtime.errors import InputError

_BASE_PART = re.compile(r"^(?:[\w.]+\.)??((?:embeddings|encoder|transformer|pooler)\..+)$")
"""The encoder's parts after any prefix: `bert.`, none (base models), `module.bert.`, `0.auto_model.` and the like."""

_WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod|_forward_module|model)\.)+")
"""What data-parallel training, torch.compile, DeepSpeed and training scripts put before every name, in any order."""

_OLD_NORMS = ((".gamma", ".weight"), (".beta", ".bias"))
"""Names of TensorFlow's first BERT checkpoints."""


def unwrapped(name: str) -> str:
    """A parameter's name without what wrappers put before it."""
    return _WRAPPERS.sub("", name)


def public_renamer(
    base: str, parts: tuple[tuple[str, str], ...] = ()
) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    """A function from public state dicts to ours.

    Args:
        base: our name of the encoder, without a dot.
        parts: (regular expression, replacement) for names inside the encoder that differ from ours.
    """

    def our_name(public: str) -> str:
        name = public
        for old, new in _OLD_NORMS:
            if name.endswith(old):
                name = name.removesuffix(old) + new
        inside = _BASE_PART.match(name)
        if inside is None:
            return unwrapped(name)
        name = inside.group(1)
        for pattern, replacement in parts:
            name = re.sub(pattern, replacement, name)
        return f"{base}.{name}"

    def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        sources: dict[str, str] = {}
        for public in state:
            ours = our_name(public)
            if ours in sources:
                raise InputError(f"checkpoint holds {ours} twice, as {sources[ours]} and as {public}: remove one")
            sources[ours] = public
        return {ours: state[public] for ours, public in sources.items()}

    return rename


def public_names(state: Mapping[str, Tensor], parts: tuple[tuple[str, str], ...] = ()) -> dict[str, Tensor]:
    """The way back: our state dict under the names of public checkpoints.

    Args:
        state: by our names.
        parts: (our part of a name, the public one), replaced one after the other.
    """
    renamed: dict[str, Tensor] = {}
    for ours, tensor in state.items():
        name = ours
        for old, new in parts:
            name = name.replace(old, new)
        renamed[name] = tensor
    return renamed
