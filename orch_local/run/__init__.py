"""One execution of a plan: the pipeline, scheduling, supervision of worker processes, the worker itself."""
