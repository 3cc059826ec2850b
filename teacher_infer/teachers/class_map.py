"""From a teacher's classes to the data set's categories, by name, with nothing lost in silence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from box_store.boxes import Boxes
from box_store.categories import Categories, Category, normalised
from box_store.errors import DataError, UsageError, nearest

# slots in a teacher's list of classes that stand for no class
_PLACEHOLDERS = frozenset({"", "n/a", "background", "__background__"})
_UNMAP = ""


@dataclass(frozen=True)
class ClassMap:
    """What each of a teacher's classes is called in the data set.

    mapping: teacher class name -> category id, or None where the data set has no such category.
    unmapped: the teacher classes without category, in the teacher's order; their boxes are dropped.
    unseen: the data-set categories that no teacher class maps to: the teacher can't find these.
    """

    class_names: tuple[str, ...]
    mapping: dict[str, int | None]
    unmapped: tuple[str, ...]
    unseen: tuple[str, ...]
    _category_ids: NDArray[np.int32] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ids = [self.mapping.get(name) for name in self.class_names]
        table = np.array([-1 if one is None else one for one in ids], np.int32)
        object.__setattr__(self, "_category_ids", table)

    @classmethod
    def build(
        cls,
        class_names: Sequence[str],
        categories: Categories,
        overrides: Mapping[str, str | int] | None = None,
    ) -> "ClassMap":
        """Match by name (case, spaces, hyphens and common synonyms don't matter), then override.

        `overrides` maps a teacher class to a category's name or id, or to "" to leave it out.
        Raises UsageError for an override that names an unknown class or category, and for a name
        that several categories have.
        """
        overrides = dict(overrides or {})
        for name in overrides:
            if name not in class_names:
                raise UsageError(
                    f"class map: the teacher has no class {name!r}.{nearest(name, class_names)}"
                )
        mapping: dict[str, int | None] = {}
        for name in class_names:
            if name.strip().casefold() in _PLACEHOLDERS and name not in overrides:
                continue
            if name in overrides:
                mapping[name] = _override(name, overrides[name], categories)
            else:
                category = _found(name, name, categories)
                mapping[name] = None if category is None else category.id
        seen = set(mapping.values())
        return cls(
            class_names=tuple(class_names),
            mapping=mapping,
            unmapped=tuple(name for name, category_id in mapping.items() if category_id is None),
            unseen=tuple(item.name for item in categories.items if item.id not in seen),
        )

    def apply(self, boxes: Boxes) -> Boxes:
        """Boxes with teacher class indices -> boxes with category ids, without the unmapped."""
        category_ids = self._category_ids[boxes.class_ids]
        keep = category_ids >= 0
        return Boxes(
            boxes.boxes_xyxy[keep],
            boxes.scores[keep],
            category_ids[keep],
            boxes.width,
            boxes.height,
        )

    def count_unmapped(self, boxes: Boxes) -> dict[str, int]:
        """How many of the boxes `apply` drops, by teacher class."""
        lost = boxes.class_ids[self._category_ids[boxes.class_ids] < 0]
        indices, counts = np.unique(lost, return_counts=True)
        return {
            self.class_names[int(index)]: int(count)
            for index, count in zip(indices, counts, strict=True)
        }

    def summary(self) -> str:
        """One sentence for people: how much of both sides matched, and what didn't."""
        mapped = len(self.mapping) - len(self.unmapped)
        parts = [f"{mapped} of {len(self.mapping)} teacher classes map to the data set"]
        if self.unmapped:
            parts.append(f"left out: {_listed(self.unmapped)}")
        if self.unseen:
            parts.append(f"categories that this teacher doesn't know: {_listed(self.unseen)}")
        return "; ".join(parts)


def _found(name: str, target: str, categories: Categories) -> Category | None:
    """The category called `target`; UsageError, with what to say for class `name`, where several
    are."""
    try:
        return categories.find(target)
    except DataError as error:
        same = [one.id for one in categories.items if normalised(one.name) == normalised(target)]
        keys = " or ".join(f"map.{name}={key}" for key in same)
        raise UsageError(f"class map: {error}. Say which one is meant with {keys}") from error


def _override(name: str, target: str | int, categories: Categories) -> int | None:
    if target == _UNMAP:
        return None
    if isinstance(target, str):
        category = _found(name, target, categories)
        if category is not None:
            return category.id
        if not target.isdecimal():
            raise UsageError(
                f"class map {name}={target}: the data set has no such category."
                f"{nearest(target, categories.names)}"
            )
    if int(target) not in categories.ids:
        raise UsageError(
            f"class map {name}={target}: expected a category id of the data set, one of "
            f"{_listed([str(one) for one in categories.ids])}"
        )
    return int(target)


def _listed(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
