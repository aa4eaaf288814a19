"""Simulated hosts and processes: who runs, what fails, who dies, and the other doors that they have."""
