"""qemu's image tools behind the image door, and qcow2 headers."""
