"""What functions of both packages take and give: paths in options, progress, and results that show themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import fields
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

StrPath: TypeAlias = "str | PathLike[str]"


class _Field:
    """A descriptor that converts what is set; dataclasses take what a class's attribute gives as the default."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_{name}"

    def _read(self, instance: object | None) -> Any:
        if instance is None:
            raise AttributeError(self._name)  # there is no default
        return getattr(instance, self._name)

    def _read_optional(self, instance: object | None) -> Any:
        return None if instance is None else getattr(instance, self._name)


class PathField(_Field):
    """A field of a frozen dataclass that must be given."""

    @overload
    def __get__(self, instance: None, owner: type) -> Any: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Path: ...
    def __get__(self, instance: object | None, owner: type) -> Any:
        return self._read(instance)

    def __set__(self, instance: object, value: StrPath) -> None:
        object.__setattr__(instance, self._name, Path(value))


class OptionalPathField(_Field):
    """A field of a frozen dataclass that is None where it is not given."""

    @overload
    def __get__(self, instance: None, owner: type) -> None: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Path | None: ...
    def __get__(self, instance: object | None, owner: type) -> Any:
        return self._read_optional(instance)

    def __set__(self, instance: object, value: StrPath | None) -> None:
        object.__setattr__(instance, self._name, None if value is None else Path(value))


class TextField(_Field):
    """A field that may be a path and may be a name, as of a model; it must be given."""

    @overload
    def __get__(self, instance: None, owner: type) -> Any: ...
    @overload
    def __get__(self, instance: object, owner: type) -> str: ...
    def __get__(self, instance: object | None, owner: type) -> Any:
        return self._read(instance)

    def __set__(self, instance: object, value: StrPath) -> None:
        object.__setattr__(instance, self._name, fspath(value))


class OptionalTextField(_Field):
    """The same, None where it is not given."""

    @overload
    def __get__(self, instance: None, owner: type) -> None: ...
    @overload
    def __get__(self, instance: object, owner: type) -> str | None: ...
    def __get__(self, instance: object | None, owner: type) -> Any:
        return self._read_optional(instance)

    def __set__(self, instance: object, value: StrPath | None) -> None:
        object.__setattr__(instance, self._name, None if value is None else fspath(value))


Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with a step, how much of it is finished and how much there is; or with a line to read, 0 and 0."""


def silent(step: str, finished: int, total: int) -> None:
    """Tell nobody."""


CountProgress = Callable[[int, int], None]
"""Called with what is finished and all there is: cases, examples, rounds, whatever is counted."""

AudioProgress = Callable[[float, float | None], None]
"""Called with the seconds of audio that are done, and those of all of it, None where that is unknown."""


WIDTH = 160
"""Characters of a line where there is no terminal whose width could be asked for."""


class Shown(ABC):
    """Base of frozen dataclasses that are made with `repr=False`.

    Texts that come from files are escaped, so that neither a terminal nor a browser obeys them.
    """

    @abstractmethod
    def tables(self) -> Sequence[RenderableType]:
        """What the command prints of it, from top to bottom: tables of rich, and texts."""

    @abstractmethod
    def to_json(self) -> Any:
        """What the command prints with --json."""

    def __repr__(self) -> str:
        try:
            from edgeformer_runtime.cli.console import text_of
        except ImportError:  # rich comes with the extra `cli`
            return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in _fields(self).items())})"
        import shutil  # not on the way to an answer

        return text_of(self.tables(), shutil.get_terminal_size((WIDTH, 0)).columns)

    def _repr_html_(self) -> str | None:
        try:
            from rich.table import Table
        except ImportError:
            return None
        return "\n".join(_table(part) if isinstance(part, Table) else f"<p>{_cell(part)}</p>" for part in self.tables())


def _fields(shown: Any) -> dict[str, object]:
    return {field.name: getattr(shown, field.name) for field in fields(shown)}


def _table(table: Table) -> str:
    """The same rows and columns, without colours."""
    caption = f"<caption>{_cell(table.title)}</caption>" if table.title else ""
    heads = [_cell(column.header) for column in table.columns]
    head = f"<thead><tr>{''.join(f'<th>{each}</th>' for each in heads)}</tr></thead>" if table.show_header else ""
    rows = zip(*([_cell(each) for each in column.cells] for column in table.columns), strict=True)
    body = "".join(f"<tr>{''.join(f'<td>{each}</td>' for each in row)}</tr>" for row in rows)
    return f"<table>{caption}{head}<tbody>{body}</tbody></table>"


def _cell(content: object) -> str:
    from html import escape

    from edgeformer_runtime.cli.console import printable

    return escape(printable(str(content)), quote=False).replace("\n", "<br>")
