"""The Dagster side: assets, checks, storage, settings and the command line.

What is computed lives in `calibration_pipeline`; here it is only named, wired and stored.
"""
