"""The LVM door of the simulator, and what lies on the devices of a volume group."""
