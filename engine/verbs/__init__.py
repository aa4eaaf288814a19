"""The verbs: each validates, plans, and commits one intent to the repository before it returns.

Whatever is left to do afterwards is a fix (``engine.fixes``), of which nothing here knows.
"""
