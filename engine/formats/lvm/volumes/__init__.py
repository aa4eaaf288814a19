"""Logical volumes that hold data: making, using, growing and reducing them. Records and headers are in ``metadata``."""
