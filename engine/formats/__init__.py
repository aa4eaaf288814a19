"""Repository formats. Each sits behind :class:`engine.formats.base.Repository`."""
