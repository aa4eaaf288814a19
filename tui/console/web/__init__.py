"""The console in a browser: the server, who may reach it, its page, and the driver of one tab."""
