"""Plots that show what is known to be wrong and not mended: `./test` leaves them out, a mend takes its line away."""

KNOWN: dict[str, str] = {}
