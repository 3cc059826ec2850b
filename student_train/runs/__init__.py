"""A run on disk: states, records, checkpoints, import."""
