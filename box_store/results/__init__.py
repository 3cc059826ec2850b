"""COCO results in and out."""
