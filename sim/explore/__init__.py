"""Exploration: every crash of every case, races of two hosts, random runs; and the oracle that judges them.

To read this package begin with ``cases.case`` (what is explored), then ``search.explorer`` (how every crash of one
case is found), then ``oracle.invariants`` (what must hold afterwards).

* ``command``: ``diskwright sim explore``
* ``cases``: the driver of a simulated world, fixtures, operations, and the catalog of cases made of them
* ``search``: one case, crashed everywhere; single calls that fail
* ``together``: two hosts at once; hosts that freeze and wake up
* ``random``: ``diskwright sim fuzz``
* ``oracle``: a reference model without the engine, invariants, recovery
"""
