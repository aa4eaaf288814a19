"""The part of a trial that runs in a guest."""
