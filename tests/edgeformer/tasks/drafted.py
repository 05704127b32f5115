"""A bundle of a tiny text generator whose programs run in torch: made in a second, and nothing is lowered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer.checkpoints.source_index import TorchEngine
from edgeformer.convert.bundle_writer import finish, write_bundle
from edgeformer.convert.target import PRECISIONS, Lowered, converter_for
from edgeformer.models.family import ProgramOptions
from edgeformer.tasks.generation import GENERATION
from edgeformer_runtime.engines import Tensor
from edgeformer_runtime.pipelines.generation import TextGenerator


class Drafted:
    """A bundle of the source whose programs run in torch."""

    def __init__(self, source: Path, folder: Path) -> None:
        checkpoint = open_checkpoint(source)
        module, _ = load_module(checkpoint, KERNELS["dense"])
        options = ProgramOptions(cache_lens=(64, 224), prompt_tokens=8)
        self.programs = checkpoint.programs(module, options)
        self.spec = GENERATION.spec(checkpoint, self.programs, options)
        lowered = folder / "lowered"
        lowered.mkdir()
        (lowered / "model.onnx").touch()
        entries = {program.name: ("model.onnx", program.name) for program in self.programs}
        draft, converter = folder / "draft", converter_for("onnx")
        draft.mkdir()
        fp32 = PRECISIONS["fp32"]
        files = Lowered(lowered, ("model.onnx",), entries, {}, None)
        made = write_bundle(draft, "tiny", checkpoint, converter, fp32, "dense", self.programs, files, self.spec)
        self.bundle = finish(made, {})

    def generator(self, spoil: Callable[[str, dict[str, Tensor]], None] | None = None) -> TextGenerator:
        """A new one, with outputs that `spoil` may change."""
        engine = TorchEngine(self.programs)
        if spoil is not None:
            run = engine.run

            def spoiled(program: str, inputs: Any) -> dict[str, Tensor]:
                outputs = {name: tensor.copy() for name, tensor in run(program, inputs).items()}
                spoil(program, outputs)
                return outputs

            engine.run = spoiled  # type: ignore[method-assign]
        return TextGenerator(self.bundle, engine)
