"""Running machines: what is behind the hypervisor door. Libraries are imported when a machine is spoken to."""
