"""Judging a repository: pure functions from what was seen to statuses and fixes.

``view`` is what a survey saw, ``rules`` is the table of what there is to say, ``health`` judges chains and images,
``offers`` has a module for each type of fix that can be offered (``propose`` makes one), ``judge`` puts it together.
Nothing here has an effect or knows the time.
"""
