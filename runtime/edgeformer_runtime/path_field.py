"""Fields of options that are paths: given as a text or any os.PathLike, and always read as a `Path`, or as a text."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeAlias, overload

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
