"""The simulator: drives the engine of `engine` behind simulated doors."""
