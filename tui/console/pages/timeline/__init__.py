"""What happened: the journal, or the steps of a trace."""
