"""COCO annotation files, read."""
