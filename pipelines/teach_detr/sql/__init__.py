"""A shell for queries."""
