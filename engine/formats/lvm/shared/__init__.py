"""Volume groups that several hosts share: sanlock's leases, the roster of hosts, and what each may be writing."""
