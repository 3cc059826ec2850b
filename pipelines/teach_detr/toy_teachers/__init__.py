"""Small teachers, trained on drawn scenes."""
