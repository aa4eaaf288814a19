"""What guests wait for: the switch of a running disk to another volume, as it is noted on this host, and the watchdog
that goes on for a process that is dead. What the switch itself does stands in ``engine.host.mirroring``."""
