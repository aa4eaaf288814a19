"""Real programs behind the doors, and the file formats they share with us.

``qcow2`` is pure: it reads and makes headers. ``nbd`` speaks to one server over one socket.
``command`` runs programs; ``qemu`` is the image door on top of all three.
"""
