"""Several hosts at once: races, one overtaken by another, hosts that freeze and wake up."""
