"""A finished run in the file formats of other evaluation tools; what each holds: docs/exports.md."""
