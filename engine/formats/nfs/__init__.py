"""The format ``nfs``: where it is mounted, patience with a server that is away. The rest is in ``formats.files``."""
