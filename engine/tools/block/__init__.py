"""Block devices: opened for direct I/O, as an image that is read and written, and made of files (loop)."""
