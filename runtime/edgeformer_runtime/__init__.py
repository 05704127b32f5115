"""The thin runtime of EdgeFormer bundles: `load(path)(input)` gives the answer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
"""What a bundle's `requires.runtime` is compared with."""

if TYPE_CHECKING:
    from edgeformer_runtime.bundle.signature import Required
    from edgeformer_runtime.engines import Engine
    from edgeformer_runtime.interface import Progress
    from edgeformer_runtime.pipelines import Pipeline

__all__ = ["__version__", "load"]


def load(
    path: str | os.PathLike[str],
    threads: int = 1,
    engine: Engine | None = None,
    require_signature: Required | None = None,
    isolated: bool = False,
    allow_refused: bool = False,
    require_name: str | None = None,
    require_version: int | None = None,
    recheck: bool = False,
    progress: Progress | None = None,
) -> Pipeline[Any, Any]:
    """Open a bundle and everything that answers with it.

    Args:
        path: the bundle's folder, or a stored zip of it; or the address where it is published, `https://HOST/FOLDER/NAME`:
            its newest release is fetched first, or else the last good one is opened (docs/delivery.md).
        threads: how many threads the engine may use.
        engine: what runs the programs in place of the engine that the bundle's target names; `close` closes it.
        require_signature: the public key that must have signed the bundle, a PEM file or its 32 bytes, or several
            of which one must; None: any bundle is taken. Of an address it is the key that signed the index.
        isolated: open the bundle in a process of its own, without network and other files and with limits on memory and
            time, which can die without this one: for untrusted bundles. It goes without `engine`.
        allow_refused: take a bundle that the gates of its conversion refused, too.
        require_name: the name that the bundle must have; None: any.
        require_version: the lowest release of it that is taken; None: any, or none at all.
        recheck: hash every file of a folder even where this user has loaded it before and no file has changed since.
            Zips, isolated bundles and those whose signature is required are hashed in any case.
        progress: of an address: called with the step, the bytes that are there, and all that are needed; or with a line
            to read, as that the last good release is opened. None: such a line is a RuntimeWarning.

    Returns:
        The pipeline of the bundle's task. It may be called from several threads; `close` releases it.

    Raises:
        BundleError: the bundle does not follow BUNDLE.md, is not what is required, or is marked as refused.
        InputError: a public key cannot be used, an engine is given to an isolated bundle, or the address cannot be
            reached and nothing was fetched from it before.
        EngineError: the engine is not installed or does not run here.

    Example:
        >>> import edgeformer_runtime
        >>> with edgeformer_runtime.load("dist/intents.onnx.fp32") as classifier:
        ...     result = classifier("turn the lights off")
        >>> len(result.labels)
        3
        >>> result.score == max(result.scores)
        True
    """
    # Imported here, so that `import edgeformer_runtime` costs nothing and loads no engine.
    from edgeformer_runtime.bundle.bundle import Bundle
    from edgeformer_runtime.engines import open_engine
    from edgeformer_runtime.errors import InputError
    from edgeformer_runtime.pipelines import open_pipeline
    from edgeformer_runtime.process import give_back_memory

    if isolated and engine is not None:
        raise InputError("isolated: an engine of this process cannot run an isolated bundle, expected none")
    if isinstance(path, str) and "://" in path:
        from edgeformer_runtime.bundle.signature import requirement_of
        from edgeformer_runtime.fetch import open_published

        required = requirement_of(require_signature, require_name, require_version)
        bundle, _ = open_published(path, required, isolated=isolated, recheck=recheck, engine=engine, progress=progress)
    else:
        bundle = Bundle.open(
            path,
            require_signature,
            require_name=require_name,
            require_version=require_version,
            allow_refused=allow_refused,
            remembered=not (recheck or isolated),
        )
    try:
        if isolated:
            from edgeformer_runtime.isolation.pipeline import IsolatedPipeline

            return IsolatedPipeline(bundle, threads)
        pipeline = open_pipeline(bundle, open_engine(bundle, threads) if engine is None else engine, owned=True)
        bundle.remember()
        give_back_memory()
        return pipeline
    except BaseException:
        bundle.close()
        raise
