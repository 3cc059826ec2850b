"""The images to label."""
