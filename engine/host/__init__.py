"""What this host remembers and runs for itself: connections, tasks, runners, holders, the machines
that have its disks open. No repository needs any of it."""
