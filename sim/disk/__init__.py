"""The simulated file system: its nodes, the file door over it, and what a power cut may leave of it."""
