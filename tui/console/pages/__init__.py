"""The pages, a folder for each that has more than one module.

The keys of a page are in the table ``ACTS`` at its end; those of every page are in ``tui.console.control.anywhere``.
A page draws plain data of ``tui.view`` and ``tui.work``, calls controllers, and reaches the application only through
``self.shell`` (``tui.console.shell``). What a key does on more than one page is a controller's, not here.
"""
