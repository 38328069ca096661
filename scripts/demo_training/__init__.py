"""Helper modules of ``scripts/train_demo.py``."""
