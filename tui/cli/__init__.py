"""The command line: what ``diskwright`` says, reads and returns. Nothing here draws a screen."""
