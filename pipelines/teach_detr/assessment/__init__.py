"""How good teachers are."""
