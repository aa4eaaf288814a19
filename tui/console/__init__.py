"""The console: what ``diskwright tui`` shows. The only package that imports Textual.

It draws what ``tui.view`` and ``tui.work`` know and passes on what the operator presses. Nothing here decides what
a fix is or does, and nothing here is needed for a fix to go on: work runs in processes of its own.
"""
