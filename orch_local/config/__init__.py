"""Run files, model configs, and the answer schema with its grammar and parser."""
