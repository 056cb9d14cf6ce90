"""The command's run: jobs executed wave by wave through an executor."""
