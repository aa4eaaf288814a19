"""Judging a repository: pure functions from what was seen to statuses and fixes.

``view`` is what a survey saw, ``health`` judges chains and images, the ``rules_*`` modules
propose fixes, ``judge`` puts it together. Nothing here has an effect or knows the time.
"""
