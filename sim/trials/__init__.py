"""What is tried on hosts of the lab: power cuts by replay, small sequences against the model, torture."""
