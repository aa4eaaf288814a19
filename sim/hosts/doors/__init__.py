"""What is behind the doors of a simulated process, except for files, images and volume groups, which are models of
their own (``sim.disk``, ``sim.qemu``, ``sim.lvm``). A door asks its process (the gate) before each call."""
