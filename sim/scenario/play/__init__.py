"""Playing a scenario: its steps, what befalls hosts and storage, what is expected."""
