"""What must be so: bytes, states, and what is said when it is not. Nothing here acts."""
