"""What this host remembers and runs for itself: connections, tasks, runners, holders. No repository needs any of it."""
