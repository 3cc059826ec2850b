"""Stages as processes; one run from a file."""
