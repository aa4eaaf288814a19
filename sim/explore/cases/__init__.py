"""What is explored: fixtures, operations on them, and the catalog of cases made of both."""
