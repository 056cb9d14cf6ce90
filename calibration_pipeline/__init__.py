"""Calibration of simulated NASCAR races: values in, values out, no orchestration."""
