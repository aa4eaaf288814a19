"""Random operations on hosts that are killed and frozen at random moments."""
