"""What this machine gives: files, leases, processes, clocks; how programs are run; threads, and memory for data."""
