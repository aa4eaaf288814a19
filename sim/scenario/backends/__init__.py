"""What a scenario is played on: the simulator, this machine, hosts of the lab."""
