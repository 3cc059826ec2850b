"""Devices, processes, compiling, signals."""
