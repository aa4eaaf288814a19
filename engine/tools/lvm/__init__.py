"""LVM behind the door to volume groups: its commands, their reports, and what the kernel has active."""
