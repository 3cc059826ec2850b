"""Students as folders of transformers: their names, their settings, their classes."""
