"""What is behind the doors on a real host; nothing else in ``engine`` has an effect.

``local``: this machine's files, leases, processes and clock, and how programs are run. ``qemu``: the image door.
``block``: block devices, and raw images without qemu. ``lvm``, ``nfs``, ``sanlock``: volume groups, mounts, leases
that hosts share. Each module of a program knows that program's output and errors; what they mean is decided above.
"""
