"""Random runs of several hosts under random faults."""
