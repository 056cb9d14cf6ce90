"""The Dagster side: assets, checks, storage, settings and the command line.

The computation is in `calibration_pipeline`; this package names, wires and stores its values.
"""

import os

# Matrices here are small: OpenBLAS's threads would wait for each other more than they work. It reads this
# when NumPy and SciPy load it, so it is set before any of them.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
