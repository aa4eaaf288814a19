"""What of a repository can be damaged, one object at a time: of files, of a volume group."""
