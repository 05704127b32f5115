"""EdgeFormer: one checkpoint to verified on-device bundles.

    import edgeformer as ef

    result = ef.convert("clinc150-mobilebert", "dist", target=("litert", "coreml"), precision="dynamic-int8")

`convert`, `verify`, `evaluate`, `benchmark`, `compress` and `doctor` do what the command of that name does, and return
what it prints. `load` opens a bundle and answers with it.

Importing this package has no effects and takes no time: a name is imported when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from sys import modules
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import inspect

    from edgeformer.api import benchmark, compress, convert, doctor, evaluate, verify
    from edgeformer.compress.budget.chain import Chain
    from edgeformer.compress.compress import Compressed
    from edgeformer.convert.result import ConversionResult, Converted
    from edgeformer.doctor.diagnosis import Diagnosis
    from edgeformer.evaluate.evaluate import EvaluationResult
    from edgeformer_runtime import load
    from edgeformer_runtime.bench.report import BenchmarkResult
    from edgeformer_runtime.errors import BundleError, EdgeFormerError, EngineError, InputError
    from edgeformer_runtime.interface import Progress
    from edgeformer_runtime.verify.verify import Verification

    __version__: str

# Where each public name is found. A function whose name a package has is that package, which is callable.
_PUBLIC = {
    "convert": "edgeformer.convert",
    "verify": "edgeformer.verify",
    "evaluate": "edgeformer.evaluate",
    "benchmark": "edgeformer.api:benchmark",
    "compress": "edgeformer.compress",
    "doctor": "edgeformer.doctor",
    "load": "edgeformer_runtime:load",
    "ConversionResult": "edgeformer.convert.result:ConversionResult",
    "Converted": "edgeformer.convert.result:Converted",
    "Verification": "edgeformer_runtime.verify.verify:Verification",
    "EvaluationResult": "edgeformer.evaluate.evaluate:EvaluationResult",
    "BenchmarkResult": "edgeformer_runtime.bench.report:BenchmarkResult",
    "Compressed": "edgeformer.compress.compress:Compressed",
    "Chain": "edgeformer.compress.budget.chain:Chain",
    "Diagnosis": "edgeformer.doctor.diagnosis:Diagnosis",
    "Progress": "edgeformer_runtime.interface:Progress",
    "EdgeFormerError": "edgeformer_runtime.errors:EdgeFormerError",
    "BundleError": "edgeformer_runtime.errors:BundleError",
    "EngineError": "edgeformer_runtime.errors:EngineError",
    "InputError": "edgeformer_runtime.errors:InputError",
}

__all__ = [
    "BenchmarkResult",
    "BundleError",
    "Chain",
    "Compressed",
    "ConversionResult",
    "Converted",
    "Diagnosis",
    "EdgeFormerError",
    "EngineError",
    "EvaluationResult",
    "InputError",
    "Progress",
    "Verification",
    "__version__",
    "benchmark",
    "compress",
    "convert",
    "doctor",
    "evaluate",
    "load",
    "verify",
]


if not TYPE_CHECKING:  # to a type checker no other name is there

    def __getattr__(name: str) -> Any:
        """Import what a public name stands for."""
        if name == "__version__":
            return import_module("importlib.metadata").version("edgeformer")
        if name not in _PUBLIC:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, _, attribute = _PUBLIC[name].partition(":")
        found = import_module(module)
        return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


# Packages that are called as the function of the public API whose name they have. `edgeformer.convert` is a package,
# and `ef.convert(...)` a call: the import system binds a submodule as an attribute of its parent, over whatever else
# had that name, so the package itself is what is called.


class CallablePackage(ModuleType):
    """A package that forwards calls to its namesake in `edgeformer.api`, with that function's signature."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the function."""
        return self._function(*args, **options)

    @property
    def __signature__(self) -> inspect.Signature:
        import inspect

        return inspect.signature(self._function)

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        """The function's, with the signature: `help` shows none of what it takes for a module."""
        import inspect
        from textwrap import indent

        summary, _, rest = inspect.cleandoc(self._function.__doc__ or "").partition("\n\n")
        options = ",\n".join(str(each) for each in self.__signature__.parameters.values())
        call = f"{self._function.__name__}(\n{indent(options, '    ')},\n) -> {self.__signature__.return_annotation}"
        return f"{summary}\n\n{indent(call, '    ')}\n\n{rest}"

    @property
    def _function(self) -> Callable[..., Any]:
        from edgeformer import api  # which imports nothing of these packages before it is called

        function: Callable[..., Any] = getattr(api, self.__name__.rpartition(".")[2])
        return function


def make_callable(package: str) -> None:
    """Make a package callable; the last line of its `__init__`."""
    modules[package].__class__ = CallablePackage
