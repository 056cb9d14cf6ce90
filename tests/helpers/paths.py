"""Folders that tests read."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""Folder of the project."""
REAL_DATA = ROOT.parent / "shared" / "data"
"""Folder of the optional real seasons."""
