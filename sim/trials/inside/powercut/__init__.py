"""In a guest: power cuts of a real kernel. ``main`` is what ``sim.trials.powercut`` calls, ``request`` what it asks for
and is told; ``file_sequences``, ``group_sequences`` and ``verbs`` are the kinds: what is recorded, and what is legal.
"""
