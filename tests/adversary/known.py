"""Plots that show what is known to be wrong and not mended: `./test` leaves them out, a mend takes its line away."""

KNOWN = {
    "teardown": "a disk is torn down, sealed and removed under a running machine",
    "holder": "what a machine uses is not protected once its holder is dead",
    "power_cut": "a snapshot is acknowledged before its contents are durable",
    "power_cut_xfs": "a snapshot is acknowledged before its contents are durable",
    "grow": "a disk that another tool has made longer is called optimized",
    "older_source": "a copy goes on from a source that was replaced by its backup",
    "locks": "a lock file that was restored makes two writers",
    "full": "freeing room needs room",
    "merges": "two merges in one chain, the lower one killed",
    "record_late": "quarantine has no way back",
    "damage_record_bit": "one damaged record blocks everything",
    "damage_locks_gone": "a lock file that is missing makes all images unreadable; the advice is to begin anew",
    "damage_directory_gone": "an empty directory that is missing makes all images unreadable",
    "damage_record_short": "one damaged record blocks everything",
}
