"""Words for people: statuses and amounts, and text from disk made harmless."""
