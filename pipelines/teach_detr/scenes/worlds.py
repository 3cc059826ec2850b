"""What the scenes are made of: which toys, how many, how large, and what lies between them."""

from dataclasses import dataclass

from teach_detr.scenes.lookalikes import LOOKALIKES
from teach_detr.scenes.sprites import TOYS, Toy


@dataclass(frozen=True)
class World:
    """How hard scenes are, whatever their style; both ends of every range are included."""

    name: str
    toys: tuple[Toy, ...]
    # width and height are drawn from these, so most scenes are not square
    sides_px: tuple[int, ...]
    objects: tuple[int, int]
    # small ones are as frequent as large ones: the logarithm is uniform
    long_side_px: tuple[float, float]
    # unlabelled pieces: as many below the toys as above
    clutter: tuple[int, int] = (0, 0)

    @property
    def categories(self) -> list[dict[str, object]]:
        """COCO's category table: ids from 1 in the order of `toys`."""
        return [
            {"id": i + 1, "name": toy.name, "supercategory": toy.supercategory}
            for i, toy in enumerate(self.toys)
        ]


WORLDS: dict[str, World] = {
    world.name: world
    for world in (
        # the demo's
        World("toys", TOYS, (128, 144, 160, 176, 192, 208), (2, 6), (26.0, 176.0)),
        # the experiments': look-alikes, small things, clutter
        World("crowd", TOYS + LOOKALIKES, (112, 128, 144, 160, 176), (3, 9), (14.0, 110.0), (2, 7)),
        # large photos of small things, for tiles
        World("wide", TOYS, (4000,), (40, 80), (16.0, 24.0)),
    )
}
