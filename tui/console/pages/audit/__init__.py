"""What is found among image files that are in no repository."""
