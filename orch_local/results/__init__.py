"""Decisions to figures: accuracy, paired tests, intervals, calibration, cost."""
