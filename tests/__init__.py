"""Tests: a folder for each part, `contracts` for what holds across all, `bench` for what measures."""
