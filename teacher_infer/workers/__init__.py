"""Processes that hold a teacher: here, in children, on Ray."""
