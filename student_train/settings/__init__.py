"""`key=value` to typed settings."""
