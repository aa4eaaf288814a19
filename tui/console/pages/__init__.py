"""The pages, a folder for each that has more than one module."""
