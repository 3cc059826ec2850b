"""Painted data sets: scenes of toys in COCO's format, in the demo's world and a harder one."""
