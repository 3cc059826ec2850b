"""LW-DETR."""
