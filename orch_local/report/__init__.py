"""Numbers and records to the terminal and to files; computes nothing."""
