"""What must be so: a reference model without the engine, invariants, and the fixes that lead there."""
