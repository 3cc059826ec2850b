"""Painted data sets: scenes of toys in COCO's format, in the demo's world and a harder one."""

from teach_detr.scenes.painting import Painter, Scene, Style, make_scenes, make_split

__all__ = ["Painter", "Scene", "Style", "make_scenes", "make_split"]
