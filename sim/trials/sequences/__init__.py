"""Small sequences of operations that the models and real kernels must agree on."""
