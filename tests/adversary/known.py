"""Plots that show what is known to be wrong and not mended: `./test` leaves them out, a mend takes its line away."""

KNOWN = {
    "power_cut_xfs": "a snapshot is acknowledged before its contents are durable",
    "full": "freeing room needs room",
    "record_late": "quarantine has no way back",
    "damage_record_bit": "one damaged record blocks everything",
    "damage_locks_gone": "a lock file that is missing makes all images unreadable; the advice is to begin anew",
    "damage_directory_gone": "an empty directory that is missing makes all images unreadable",
    "damage_record_short": "one damaged record blocks everything",
}
