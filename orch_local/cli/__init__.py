"""The command line, a file a group of commands. `app.py` puts them together."""
