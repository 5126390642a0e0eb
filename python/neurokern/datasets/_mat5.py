"""Matlab's files of version 5, read with every size checked: numbers, texts, cells and structures.

The layout is that of MathWorks' "MAT-File Format". Readers at hand trust the sizes in the file and can crash
on a damaged one, so this one is our own; sparse arrays, objects and function handles are left out.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from neurokern._check import check_memory

__all__ = ["Mat5File", "is_mat5"]

_HEADER = 128
_KINDS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {16: "utf-8", 17: "utf-16", 18: "utf-32"}
_NUMERIC = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_CELL, _STRUCT, _CHAR = 1, 2, 4
_MATRIX, _COMPRESSED = 14, 15
_DEEPEST = 24
_FIRST = 4096  # bytes of a compressed variable that hold its name


@dataclass(frozen=True)
class _Element:
    """A piece of the file: its type and its bytes."""

    kind: int
    data: memoryview


def is_mat5(start: bytes) -> bool:
    """Return whether a file begins like one of version 5, of either byte order."""
    return len(start) >= _HEADER and start[126:128] in (b"IM", b"MI") and start.startswith(b"MATLAB 5.0")


class Mat5File:
    """Variables of a file by name, each read when it is asked for; cells become lists, structures dicts.

    Raises
    ------
    ValueError
        If the file is damaged.
    """

    def __init__(self, function: str, path: Path) -> None:
        self._function, self._path = function, path
        content = path.read_bytes()
        if not is_mat5(content[:_HEADER]):
            self._fail("is not of Matlab's version 5")
        self._order = "<" if content[126:128] == b"IM" else ">"
        self._found: dict[str, tuple[memoryview, bool]] = {}
        for element in self._elements(memoryview(content)[_HEADER:], padded=True):
            packed = element.kind == _COMPRESSED
            start = self._inflate(element.data, _FIRST) if packed else element.data
            if packed:
                start = start[8:]
            elif element.kind != _MATRIX:
                self._fail(f"has an element of type {element.kind} among its variables")
            name = self._name(start)
            if name:
                self._found[name] = (element.data, packed)

    @property
    def names(self) -> list[str]:
        """Names of the variables, sorted."""
        return sorted(self._found)

    def read(self, name: str) -> Any:
        """Return a variable: an array, a list of what is in its cells, or a dict of a structure's fields."""
        data, packed = self._found[name]
        if packed:
            size = self._tag(self._inflate(data, 8))[1]
            check_memory(self._function, f"{name} of {self._path.name}", size, "is the file damaged?")
            data = self._inflate(data, size + 8)[8:]
            if len(data) < size:
                self._fail(f"is cut short in {name}")
        return self._matrix(data, 0)

    def _fail(self, why: str) -> NoReturn:
        raise ValueError(f"{self._function}: {self._path.name} {why}")

    def _inflate(self, data: memoryview, most: int) -> memoryview:
        try:
            return memoryview(zlib.decompressobj().decompress(data, most))
        except zlib.error as error:
            self._fail(f"is damaged ({error})")

    def _tag(self, data: memoryview) -> tuple[int, int, int]:
        """Return type, bytes and where the bytes begin; short elements keep them in the tag."""
        if len(data) < 8:
            self._fail("is cut short")
        first, second = np.frombuffer(data[:8], f"{self._order}u4").tolist()
        return (first & 0xFFFF, first >> 16, 4) if first >> 16 else (first, second, 8)

    def _elements(self, data: memoryview, *, padded: bool = True) -> Iterator[_Element]:
        while len(data) >= 8:
            kind, size, begin = self._tag(data)
            if size > len(data) - begin or (begin == 4 and size > 4):
                self._fail(f"is cut short: {size} bytes of an element, {len(data) - begin} are there")
            yield _Element(kind, data[begin : begin + size])
            stop = 8 if begin == 4 else begin + size
            # Compressed ones follow each other closely, all others begin at multiples of eight bytes.
            data = data[stop if kind == _COMPRESSED else -(-stop // 8) * 8 :]

    def _head(self, data: memoryview) -> tuple[int, tuple[int, ...], str, Iterator[_Element]]:
        """Return class, shape and name of a matrix, and what follows."""
        parts = self._elements(data)
        flags, dims, name = (next(parts, None) for _ in range(3))
        if flags is None or dims is None or name is None or len(flags.data) < 8 or dims.kind != 5:
            self._fail("is damaged in the head of a variable")
        shape = tuple(np.frombuffer(dims.data[: len(dims.data) // 4 * 4], f"{self._order}i4").tolist())
        if not shape or len(shape) > 32 or min(shape) < 0:
            self._fail(f"is damaged: a variable of shape {shape}")
        kind = int(np.frombuffer(flags.data[:4], f"{self._order}u4")[0]) & 0xFF
        return kind, shape, bytes(name.data).decode("latin-1"), parts

    def _name(self, data: memoryview) -> str:
        # Of a compressed variable only the start is here: what is cut off comes after the name.
        parts = []
        for _ in range(3):
            _, size, begin = self._tag(data)
            if size > len(data) - begin:
                self._fail("is damaged in the head of a variable")
            parts.append(bytes(data[begin : begin + size]))
            data = data[8 if begin == 4 else -(-(begin + size) // 8) * 8 :]
        return parts[2].decode("latin-1")

    def _matrix(self, data: memoryview, depth: int) -> Any:
        if not len(data):
            return np.zeros((0, 0))
        if depth > _DEEPEST:
            self._fail(f"has cells and structures more than {_DEEPEST} deep")
        kind, shape, _, parts = self._head(data)
        n = math.prod(shape)
        if n > len(data):
            self._fail(f"is damaged: {n} values in {len(data)} bytes")
        if kind == _CELL:
            return [self._inside(parts, depth) for _ in range(n)]
        if kind == _STRUCT:
            return self._struct(parts, n, depth)
        if kind == _CHAR:
            return self._text(parts, shape)
        if kind not in _NUMERIC:
            self._fail(
                f"holds a variable of class {kind}: only numbers, texts, cells and structures are read"
            )
        values = self._values(next(parts, None), n)
        return values.astype(_NUMERIC[kind]).reshape(shape, order="F")

    def _inside(self, parts: Iterator[_Element], depth: int) -> Any:
        element = next(parts, None)
        if element is None or element.kind != _MATRIX:
            self._fail("is cut short in a cell or structure")
        return self._matrix(element.data, depth + 1)

    def _struct(self, parts: Iterator[_Element], n: int, depth: int) -> dict[str, Any] | list[dict[str, Any]]:
        length, names = next(parts, None), next(parts, None)
        if length is None or names is None or len(length.data) < 4:
            self._fail("is cut short in a structure")
        width = int(np.frombuffer(length.data[:4], f"{self._order}i4")[0])
        if not 0 < width <= 64:
            self._fail(f"is damaged: names of {width} bytes in a structure")
        text = bytes(names.data)
        fields = [text[k : k + width].split(b"\0")[0].decode("latin-1") for k in range(0, len(text), width)]
        rows = [{field: self._inside(parts, depth) for field in fields} for _ in range(n)]
        return rows[0] if len(rows) == 1 else rows

    def _values(self, element: _Element | None, n: int) -> np.ndarray:
        if element is None or element.kind not in _KINDS:
            self._fail("is damaged: an array without its values")
        dtype = np.dtype(self._order + _KINDS[element.kind])
        if len(element.data) != n * dtype.itemsize:
            self._fail(f"is damaged: {len(element.data)} bytes for {n} values of {dtype.name}")
        return np.frombuffer(element.data, dtype)

    def _text(self, parts: Iterator[_Element], shape: tuple[int, ...]) -> np.ndarray:
        """Return the rows of a text; numbers of characters are taken for code points."""
        element, n = next(parts, None), math.prod(shape)
        if element is not None and element.kind in _TEXTS:
            name = _TEXTS[element.kind] + (
                "" if element.kind == 16 else "-le" if self._order == "<" else "-be"
            )
            codes = np.array([ord(letter) for letter in bytes(element.data).decode(name, errors="replace")])
            if len(codes) != n:
                self._fail(f"is damaged: a text of {len(codes)} characters for {n}")
        else:
            codes = self._values(element, n)
        if not n:
            return np.array([""])
        rows = codes.astype(np.int64).clip(0, 0x10FFFF).reshape(shape[0], -1, order="F").tolist()
        return np.array(["".join(map(chr, row)) for row in rows])
