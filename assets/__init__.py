"""The Dagster side: assets, checks, storage, settings and the command line.

What is computed lives in `calibration_pipeline`; here it is only named, wired and stored.
"""

import os

# Matrices here are small: OpenBLAS's threads would wait for each other more than they work. It reads this
# when NumPy and SciPy load it, so it is set before any of them.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
