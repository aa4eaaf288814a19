"""The terminal that the console is on: starting there, keys in the order in which they come, the end of it all."""
