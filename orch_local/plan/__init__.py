"""A run file frozen: specs, environment, and the differences between two plans."""
