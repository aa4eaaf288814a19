"""Scenario files: stories of disks, hosts and mishaps that are played on the real engine and judged.

``scenarios/README.md`` is the description for those who write one. ``source`` reads YAML with the
line of everything in it, ``schema`` says which words there are, ``parse`` makes a ``model.Scenario``
of a file or says what is wrong with it, ``play`` plays one on a backend (``on_sim``, ``on_local``),
``command`` is ``diskwright sim run``.
"""
