"""Repositories of files: everything that localfs and NFS have in common, and the format ``localfs``."""
