"""Reads what a native library needs and offers."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

_JNI_NAME = re.compile(rb"(?<![\w/$])L?((?:[a-z][a-z0-9_]*/)+[A-Z][\w$]*);?(?![\w/$])")


@dataclass(frozen=True)
class NativeLibrary:
    """What matters of a `.so` to whoever packages it.

    Attributes:
        needed: the libraries that the loader must find first.
        exports: the names of the symbols that it defines for others.
        classes: the names in its constants that look like classes which it may look up through JNI, with slashes.
    """

    needed: tuple[str, ...]
    exports: frozenset[str]
    classes: frozenset[str]


def read_library(data: bytes) -> NativeLibrary:
    """Read a shared library.

    Raises:
        ELFError: it is none.
    """
    elf = ELFFile(io.BytesIO(data))
    dynamic = elf.get_section_by_name(".dynamic")
    symbols = elf.get_section_by_name(".dynsym")
    constants = elf.get_section_by_name(".rodata")
    if not (isinstance(dynamic, DynamicSection) and isinstance(symbols, SymbolTableSection) and constants):
        raise ELFError("expected a shared library with dynamic symbols and constants")
    return NativeLibrary(
        needed=tuple(str(vars(tag)["needed"]) for tag in dynamic.iter_tags("DT_NEEDED")),
        exports=frozenset(symbol.name for symbol in symbols.iter_symbols() if symbol["st_shndx"] != "SHN_UNDEF"),
        classes=frozenset(match.decode() for match in _JNI_NAME.findall(constants.data())),
    )
