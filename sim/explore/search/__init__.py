"""One case, crashed everywhere: states of a power cut, which of them are alike, single calls that fail."""
