"""What is prepared on this host, and the machines that have it open."""
