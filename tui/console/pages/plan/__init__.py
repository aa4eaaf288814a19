"""The plan, before anything is done."""
