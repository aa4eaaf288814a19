"""Triage, the first page: what can be fixed."""
