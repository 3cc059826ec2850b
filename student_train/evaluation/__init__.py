"""AP, confusion, plots, comparison."""
