"""What runs, and what ran."""
