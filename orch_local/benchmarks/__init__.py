"""Question loaders: files of known benchmarks and of the user to questions, and what their golds say."""
