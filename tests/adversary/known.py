"""Plots that show what is known to be wrong and not mended: `./test` leaves them out, a mend takes its line away."""

KNOWN = {
    "damage_locks_gone": "a lock file that is missing makes all images unreadable; the advice is to begin anew",
    "damage_directory_gone": "an empty directory that is missing makes all images unreadable",
}
