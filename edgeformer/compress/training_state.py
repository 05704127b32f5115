"""The state of a training run on disk: complete or not there, whenever the process is killed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import Accelerator
from safetensors import SafetensorError

from edgeformer_runtime.errors import InputError

_PROGRESS_FILE = "progress.json"
_UNFINISHED = ".unfinished"


class TrainingStates:
    """States of one step's training, in `<folder>/<update>`; each is written beside its name and then renamed."""

    def __init__(self, folder: Path, accelerator: Accelerator) -> None:
        self._folder = folder
        self._accelerator = accelerator

    def save(self, update: int, loss: float) -> None:
        """Keep model, optimizer, scaler and random numbers before the update `update`; older states go."""
        unfinished = self._folder / f"{update}{_UNFINISHED}"
        with writing(self._folder):
            if self._accelerator.is_main_process:
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir(parents=True)
            self._accelerator.wait_for_everyone()
            self._accelerator.save_state(str(unfinished))
            self._accelerator.wait_for_everyone()
            if self._accelerator.is_main_process:
                (unfinished / _PROGRESS_FILE).write_text(json.dumps({"loss": loss}), encoding="utf-8")
                unfinished.rename(self._folder / str(update))
                self._drop_all_but(update)
        self._accelerator.wait_for_everyone()

    def restore(self) -> tuple[int, float] | None:
        """Load the newest state into what the accelerator prepared: (its update, its running loss), or None."""
        updates = [int(path.name) for path in self._folder.glob("*") if path.name.isdecimal()]
        if not updates:
            return None
        newest = self._folder / str(max(updates))
        self._accelerator.load_state(str(newest))
        progress = json.loads((newest / _PROGRESS_FILE).read_text(encoding="utf-8"))
        return max(updates), float(progress["loss"])

    def clear(self) -> None:
        """The step is finished."""
        self._accelerator.wait_for_everyone()
        if self._accelerator.is_main_process:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _drop_all_but(self, update: int) -> None:
        for path in self._folder.iterdir():
            if path.name != str(update):
                shutil.rmtree(path, ignore_errors=True)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn a disk that is full, or forbids writing, into one line."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        # torch and safetensors wrap the system's error in ones of their own.
        text = str(error)
        of_files = isinstance(error, OSError | SafetensorError) or "file" in text or "PytorchStreamWriter" in text
        if not of_files:
            raise
        reason = getattr(error, "strerror", None) or (text.strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"cannot write to {folder.parent}: {reason}; make room there (the run is kept, --resume goes on with it)"
        ) from None
