"""Scenario files: disks, hosts and mishaps that are played on the real engine and judged.

``scenarios/README.md`` is the description for those who write one. To read this package begin with ``language.model``
(what a scenario is), then ``play.play`` (how one is played), then ``backends.backend`` (what it is played on).

* ``command``: ``diskwright sim run``
* ``language``: a file becomes a ``model.Scenario``, or it is said what is wrong with it
* ``play``: step after step, up to the first thing that is not as expected
* ``backends``: the simulator, this machine, hosts of the lab
* ``report``: verdicts for people and machines, and what a trace keeps of a run

To add a step: its words in ``language.schema`` (``python -m sim.scenario.language.schema`` writes their table for
``scenarios/README.md``); then, for what a process of a host does, ``backends.operations`` and the arguments in
``play.arguments``, for what befalls hosts, ``backends.backend``, the backends that have it and ``play.events``; and a
scenario that shows it. To add a fault: ``sim.hosts.faults``, which explorations and random runs know too, and its name
in ``language.schema``.
"""
