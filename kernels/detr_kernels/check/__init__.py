"""Deformable attention verified on the machine at hand.

`python -m detr_kernels.check --help` says how to run it.
"""
