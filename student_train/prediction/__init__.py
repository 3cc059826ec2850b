"""Use of a trained student."""
