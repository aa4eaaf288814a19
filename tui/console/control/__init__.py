"""What acts of the console do, whatever page they were called from."""
