"""The scenario language: from a YAML file to plain data, every word and reference checked. Plays nothing."""
