"""Executing fixes: each module runs the rules of one kind, step by persisted step.

Every step may be the last one before a crash. What was being made or deleted stays named by a
record, so the same rule (or a clean) fires again and goes on.
"""
