"""Reads what a `.dex` file defines: its classes, and which of their methods are native.

Format: "Dalvik executable format", https://source.android.com/docs/core/runtime/dex-format
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_NATIVE = 0x0100
_CLASS_DEFINITION_BYTES = 32
_METHOD_ID_BYTES = 8


@dataclass(frozen=True)
class DexClass:
    """A class that a dex file defines.

    Attributes:
        name: with slashes, as JNI writes it: "ai/onnxruntime/OnnxTensor".
        native_methods: the names of its native methods.
    """

    name: str
    native_methods: tuple[str, ...]


def read_classes(dex: bytes) -> list[DexClass]:
    """The classes of a dex file, in its order.

    Raises:
        ValueError: it is no dex file.
    """
    return _Dex(dex).classes()


class _Dex:
    def __init__(self, data: bytes) -> None:
        if data[:4] != b"dex\n":
            raise ValueError(f"expected a dex file, found one that starts with {data[:4]!r}")
        self._data = data
        header = struct.unpack_from("<14I", data, 0x38)
        self._strings, self._types, self._methods = header[1], header[3], header[9]
        self._class_count, self._classes = header[10], header[11]

    def classes(self) -> list[DexClass]:
        starts = (self._classes + index * _CLASS_DEFINITION_BYTES for index in range(self._class_count))
        return [self._class(begin) for begin in starts]

    def _class(self, begin: int) -> DexClass:
        type_index, *_, data_begin, _ = struct.unpack_from("<8I", self._data, begin)
        return DexClass(self._type(type_index)[1:-1], tuple(self._native_methods(data_begin)))

    def _native_methods(self, position: int) -> list[str]:
        """Names of the native methods of a `class_data_item`, which has none where its position is 0."""
        if not position:
            return []
        counts = []
        for _ in range(4):
            count, position = self._leb128(position)
            counts.append(count)
        for _ in range(2 * (counts[0] + counts[1])):  # fields: index difference, flags
            _, position = self._leb128(position)
        names = []
        for count in counts[2:]:  # direct methods, virtual methods: each list counts its indices anew
            method = 0
            for _ in range(count):
                difference, position = self._leb128(position)
                flags, position = self._leb128(position)
                _, position = self._leb128(position)
                method += difference
                if flags & _NATIVE:
                    names.append(self._method_name(method))
        return names

    def _method_name(self, index: int) -> str:
        _, _, name = struct.unpack_from("<HHI", self._data, self._methods + index * _METHOD_ID_BYTES)
        return self._string(name)

    def _type(self, index: int) -> str:
        return self._string(struct.unpack_from("<I", self._data, self._types + 4 * index)[0])

    def _string(self, index: int) -> str:
        position = struct.unpack_from("<I", self._data, self._strings + 4 * index)[0]
        _, begin = self._leb128(position)
        # Modified UTF-8 differs from UTF-8 only for NUL and characters that no name of ours has.
        return self._data[begin : self._data.index(0, begin)].decode("utf-8", "replace")

    def _leb128(self, position: int) -> tuple[int, int]:
        """An unsigned LEB128 number, and the position behind it."""
        value = shift = 0
        while True:
            byte = self._data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
            shift += 7
