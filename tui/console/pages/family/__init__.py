"""Which images stand on which."""
