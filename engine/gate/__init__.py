"""The gate: the one way to the data of a volume, told for what purpose. What must hold before is in one table.

Nothing outside of here and of the formats opens, makes, freezes, deletes or puts away a volume (a test sees to it).
"""
