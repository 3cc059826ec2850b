"""Four more toys, each drawn to be taken for one of the eight at first sight.

They share outline, proportions and trim with the toy that they resemble; what tells them apart is
one part that small boxes, blur and occlusion hide easily.
"""

import math

from teach_detr.scenes.sprites import GLASS, INK, WOOD, Pen, Toy, chassis, shade


def _truck(pen: Pen) -> None:
    """A car with a flat bed behind the cab: the second window is missing."""
    roof = pen.rng.uniform(0.20, 0.30)
    nose = pen.rng.uniform(0.16, 0.24)
    pen.polygon([(0.50, 0.48), (0.52, roof), (0.72, roof), (0.86, 0.48)], pen.body)
    pen.polygon([(0.56, 0.47), (0.57, roof + 0.05), (0.69, roof + 0.05), (0.78, 0.47)], GLASS)
    pen.block(0.05, 0.38, 0.47, 0.52, shade(pen.body, 0.8))
    chassis(pen, nose)


def _ship(pen: Pen) -> None:
    """A boat's hull under square sails on two masts."""
    for mast in (0.32, 0.66):
        top = pen.rng.uniform(0.10, 0.20)
        pen.line([(mast, top - 0.05), (mast, 0.70)], WOOD, 0.03)
        middle = 0.5 * (top + 0.60)
        half = pen.rng.uniform(0.11, 0.15)
        pen.block(mast - half, top, mast + half, middle - 0.01, (246, 242, 230), r=0.02)
        pen.block(mast - half, middle + 0.01, mast + half, 0.60, pen.trim, r=0.02)
    pen.polygon([(0.05, 0.67), (0.95, 0.67), (0.78, 0.92), (0.22, 0.92)], pen.body)
    pen.polygon([(0.05, 0.67), (0.95, 0.67), (0.918, 0.717), (0.082, 0.717)], shade(pen.body, 0.65))


def _barn(pen: Pen) -> None:
    """A house with a broken roof line and one wide, crossed door in the middle."""
    eaves = pen.rng.uniform(0.40, 0.48)
    pen.block(0.14, eaves, 0.86, 0.95, pen.body)
    pen.polygon(
        [
            *[(0.05, eaves + 0.04), (0.18, 0.5 * eaves), (0.50, 0.07)],
            *[(0.82, 0.5 * eaves), (0.95, eaves + 0.04)],
        ],
        pen.trim,
    )
    pen.disc(0.50, 0.30, 0.07, 0.07, GLASS)
    door = pen.rng.uniform(0.18, 0.24)
    pen.block(0.5 - door, 0.56, 0.5 + door, 0.95, shade(pen.trim, 0.6), r=0.02)
    for x in (-door, door):
        pen.line([(0.5 - x, 0.57), (0.5 + x, 0.94)], (250, 246, 232), 0.03)


def _shark(pen: Pen) -> None:
    """A fish without stripes, slimmer, its back fin a sickle and its belly pale."""
    pen.polygon([(0.70, 0.50), (0.97, 0.18), (0.88, 0.50), (0.95, 0.70)], pen.body)
    pen.polygon([(0.36, 0.38), (0.56, 0.12), (0.58, 0.40)], shade(pen.body, 0.85))
    pen.polygon([(0.34, 0.62), (0.50, 0.84), (0.48, 0.62)], shade(pen.body, 0.85))
    pen.curve(
        lambda t: (
            0.41 - 0.37 * math.cos(2 * math.pi * t),
            0.50 + 0.19 * math.sin(2 * math.pi * t) * (1 - 0.15 * math.cos(2 * math.pi * t)),
        ),
        pen.body,
    )
    pen.curve(
        lambda t: (
            0.38 - 0.28 * math.cos(2 * math.pi * t),
            0.60 + 0.07 * math.sin(2 * math.pi * t),
        ),
        shade(pen.trim, 1.2),
    )
    pen.disc(0.20, 0.44, 0.045, 0.045, (250, 250, 246))
    pen.disc(0.19, 0.44, 0.024, 0.024, INK)


LOOKALIKES: tuple[Toy, ...] = (
    Toy("truck", "vehicle", _truck, 25),
    Toy("ship", "vehicle", _ship, 25),
    Toy("barn", "outdoor", _barn, 15),
    Toy("shark", "animal", _shark, 45),
)
