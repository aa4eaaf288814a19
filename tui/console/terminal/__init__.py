"""The terminal that the console is on: keys in the order in which they come, and the end when the terminal has gone."""
