"""One qcow2 image as qemu keeps it: ``image`` is the way in, over ``tables`` and their ``cache``; ``check`` looks and
repairs."""
