"""What came of a scenario, and how it is told: text, JSON, JUnit XML, a trace to be looked at."""
