"""Pictures of amounts over time: the space of a repository, the work of a run."""
