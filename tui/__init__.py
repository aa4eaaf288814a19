"""The command line and the console: the only place that wires things together."""
