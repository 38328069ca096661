"""What can be proved of a run: verify, replay, and the differences between two runs."""
