"""Finding and changing records: one tag, the chain below it, the leases on it, an attempt at its operation."""
