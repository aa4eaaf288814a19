"""An operator's decisions and what comes of them: the queue, plans, runs, the journal, settings."""
