"""sanlock behind the door to leases that hosts share."""
