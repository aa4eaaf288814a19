"""The verbs: each validates, plans, and commits one intent to the repository before it returns."""
