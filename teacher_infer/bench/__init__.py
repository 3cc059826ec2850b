"""How fast labelling is."""
