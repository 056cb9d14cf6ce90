"""What the project costs in time and memory, beside other tools and floors: docs/performance.md."""
