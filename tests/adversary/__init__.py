"""An outside tester: it knows the documentation, drives the real commands, and keeps its own model of every image."""
