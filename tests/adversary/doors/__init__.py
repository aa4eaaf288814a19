"""What acts: storage, hosts that run commands, machines, processes and their end, damage to files."""
