"""The format ``lvm``: logical volumes of one volume group, with their records in one of them."""
