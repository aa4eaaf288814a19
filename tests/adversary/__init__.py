"""An outside tester: it knows the documentation, drives the real commands, and keeps its own model of every image.

    make adversary MINUTES=30                                   ordinary work with kills, and what must be quiet
    make adversary MINUTES=5 SEED=7 PLOTS="holder grow"         these alone
    make adversary MINUTES=30 FORMAT=nfs                        in a lab: two hosts, a server; lvm: one host
    python -m tests.adversary --list                            the plots, and what is known
    python -m tests.adversary --minutes 60 --known --go-on      also what is known to be wrong
    python -m tests.adversary --replay FILE --times 5           a story that was kept with --keep FILE

It imports nothing of the project. A story is rounds of actions; those of a round run side by side, by two hosts
(`--host`, `--state`; on NFS two guests of a lab, which die and sleep too). `doors/sites.py` is the seam for storage:
what one cannot do is not drawn there. Every write is numbered blocks, so what an image holds tells by itself which
writes it has seen.
Exit code 0 means that it happened and lasts; a refusal, that nothing happened; anything else, before or after.

Looked at are, after each round, which images are listed, what the usable ones contain, what machines have
open; at the end all fixes, a deep check, contents again, that no fix is left, and that the repository can be emptied.
"""
