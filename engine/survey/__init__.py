"""Looking at a repository, read-only: what is seen becomes the view that ``engine.triage`` judges."""
