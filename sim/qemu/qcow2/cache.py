"""Tables of a qcow2 image in memory, and when they go back to the file: qemu's ``qcow2-cache.c``.

Two caches hold what was changed and not written yet, L2 entries and reference counts. Each may
depend on the other: then the other is durable before anything of it is written.
"""

from __future__ import annotations

from array import array

from sim.qemu.image_file import ImageFile


class Cache:
    """Pages of tables. What is set is in the file only after ``write``, and durable after ``flush``."""

    def __init__(self, file: ImageFile, code: str, page_bytes: int) -> None:
        self.depends: Cache | None = None
        self.per_page = page_bytes // array(code).itemsize
        self.page_bytes = page_bytes
        self._file = file
        self._code = code
        self._pages: dict[int, array[int]] = {}
        self._dirty: dict[int, None] = {}

    def page(self, offset: int) -> array[int]:
        """The page at an offset of the file, to be read only."""
        page = self._pages.get(offset)
        if page is None:
            page = array(self._code)
            page.frombytes(self._file.read(offset, self.page_bytes))
            page.byteswap()
            self._pages[offset] = page
        return page

    def get(self, table: int, index: int) -> int:
        """An entry of the table at offset ``table``."""
        number, inner = divmod(index, self.per_page)
        return self.page(table + number * self.page_bytes)[inner]

    def set(self, table: int, index: int, value: int, dirty: bool = True) -> None:
        """Change an entry; not ``dirty``: the caller has written it."""
        number, inner = divmod(index, self.per_page)
        offset = table + number * self.page_bytes
        self.page(offset)[inner] = value
        if dirty:
            self._dirty[offset] = None

    def touched(self, offset: int) -> array[int]:
        """The page at ``offset``, to be changed."""
        self._dirty[offset] = None
        return self.page(offset)

    def blank(self, table: int, length: int) -> None:
        """The table at ``table`` was written as zeros."""
        for offset in range(table, table + length, self.page_bytes):
            self._pages[offset] = array(self._code, bytes(self.page_bytes))

    def write(self) -> None:
        """Write what was changed, after what it depends on is durable."""
        while self._dirty:
            if self.depends is not None:
                self._flush_dependency()
            offset = next(iter(self._dirty))
            page = self._pages[offset][:]
            page.byteswap()
            self._file.write(offset, page.tobytes())
            del self._dirty[offset]

    def flush(self) -> None:
        """``write``, then sync the file."""
        self.write()
        self._file.sync()

    def after(self, other: Cache) -> None:
        """Write this cache from now on only when ``other`` is durable."""
        if other.depends is not None:
            other._flush_dependency()
        if self.depends is not None and self.depends is not other:
            self._flush_dependency()
        self.depends = other

    def _flush_dependency(self) -> None:
        assert self.depends is not None
        self.depends.flush()
        self.depends = None
