"""From an image to feature maps or tokens."""
