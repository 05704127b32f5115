"""Results that show themselves: the tables that their command prints, as text in a terminal, as HTML in a notebook."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import fields
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

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
    from edgeformer_runtime.cli.console import printable

    return escape(printable(str(content)), quote=False).replace("\n", "<br>")
