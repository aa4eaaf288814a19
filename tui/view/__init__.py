"""What is shown, as plain data for both faces. Reads; changes nothing."""
