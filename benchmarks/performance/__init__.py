"""What the project costs: time and memory, against other tools and against floors; see docs/performance.md."""
