"""Everything the console shows and does, without a screen: plain data in, plain data out.

Nothing here imports textual. Texts that come from disk pass ``tui.printable`` at the edge of
this package, so whatever reads its rows may write them to a terminal.
"""
