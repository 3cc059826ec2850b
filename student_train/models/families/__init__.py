"""The students, one module or folder a family."""
