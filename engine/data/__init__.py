"""Plain data: what an image, a record, a fix, a line of progress is, and their bytes. No effects, no doors."""
