"""The contract of every boundary: `frames` (polars), `datasets` (xarray) and how they are checked."""
