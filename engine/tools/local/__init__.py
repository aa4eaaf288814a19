"""What this machine gives: programs, threads, memory for data on its way."""
