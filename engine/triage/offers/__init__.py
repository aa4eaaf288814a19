"""Which fixes are offered, and when: a module for each type of fix.

Lives here: the conditions, and what an operator is told of this one fix. Does not live here: codes and wording (the
table ``engine.triage.rules``), what is wrong with an image (``health``), and the work itself (``engine.fixes``).
"""
