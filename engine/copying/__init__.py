"""Moving bytes between volumes: which ranges, in what order, and where to go on after a crash."""
