"""Deformable attention timed beside its peers, with errors, memory and the machine's own limits.

`python -m detr_kernels.bench --help` says how to run it.
"""
