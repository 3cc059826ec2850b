"""D-FINE and DEIM."""
