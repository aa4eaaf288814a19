"""Every crash of every story, races of two hosts, random runs; the oracle that judges them."""
