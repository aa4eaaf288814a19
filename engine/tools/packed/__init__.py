"""Raw images that are compressed as a whole: read in order, by the programs that made them."""
