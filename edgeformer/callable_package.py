"""Packages that are called as the function of the public API whose name they have.

`edgeformer.convert` is a package, and `ef.convert(...)` a call. The import system binds a submodule as an attribute of
its parent, over whatever else had that name. So the package itself is what is called.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from textwrap import indent
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package that forwards calls to its namesake in `edgeformer.api`, with that function's signature."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the function."""
        return self._function(*args, **options)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function)

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        """The function's, with the signature: `help` shows none of what it takes for a module."""
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
    sys.modules[package].__class__ = CallablePackage
