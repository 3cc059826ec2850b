"""Size, speed and memory of a store beside its alternatives, on synthetic boxes.

`python -m box_store.measure --help` says how to run it.
"""
