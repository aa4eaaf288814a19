"""Mounts of NFS behind the mount door, and who uses them."""
