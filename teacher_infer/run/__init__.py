"""From a plan to committed units."""
