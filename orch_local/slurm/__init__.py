"""A run on a SLURM cluster: scripts, submission, what an array task does, and how far all is."""
