"""Intervals, calibration and paired tests."""
