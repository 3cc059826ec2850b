"""A race: arms that are clearly better or worse after some seeds are not trained any further.

Every look at the results is a further chance to be fooled, so the race asks for more than the final
verdict does: an interval of 99 %, from the third seed on, at most once a seed.
"""

from collections.abc import Iterator, Sequence

from teach_detr.experiment.grid import Cell
from teach_detr.experiment.outcome import Outcome

FIRST_LOOK = 3
_SURE = 0.99


def heats(cells: Sequence[Cell], seeds: Sequence[int]) -> Iterator[list[Cell]]:
    """The cells of the first seeds together, then those of each further seed."""
    for chosen in (seeds[:FIRST_LOOK], *([seed] for seed in seeds[FIRST_LOOK:])):
        heat = [cell for cell in cells if cell.seed in chosen]
        if heat:
            yield heat


def decided(outcome: Outcome) -> set[tuple[str, str]]:
    """Conditions and arms whose difference is sure; and the reference, where all of them are."""
    found = set()
    for condition, arms in outcome.conditions.items():
        compared = {name for name, arm in arms.items() if arm.difference is not None}
        sure = {name for name in compared if arms[name].is_sure(_SURE, FIRST_LOOK)}
        found |= {(condition, name) for name in sure}
        if compared and sure == compared:
            found.add((condition, outcome.reference))
    return found
