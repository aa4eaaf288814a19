"""The image door of the simulator: qcow2 as qemu keeps it, written to simulated or real files."""
