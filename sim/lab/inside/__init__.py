"""What runs inside a guest: process 1 prepares the machine, then does what comes over the serial line."""
