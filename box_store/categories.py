"""Class spaces: the data set's category table, and how a student numbers its logits."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from box_store.errors import DataError, nearest

# spellings of one thing in the common label sets (VOC, COCO, LVIS, Open Images), after `normalised`
_SYNONYMS: tuple[tuple[str, ...], ...] = (
    ("motorcycle", "motorbike"),
    ("airplane", "aeroplane"),
    ("couch", "sofa"),
    ("tv", "tvmonitor", "television", "televisionset"),
    ("hairdrier", "hairdryer"),
    ("donut", "doughnut"),
    ("cellphone", "mobilephone"),
    ("tennisracket", "tennisracquet"),
)
_CANONICAL = {other: group[0] for group in _SYNONYMS for other in group}

# a raw class space may have so many logits, and so many a category: LVIS has ids up to 1203,
# Objects365 up to 365, COCO 90 for 80
_RAW_FROM, _RAW_TIMES = 2048, 20


def normalised(name: str) -> str:
    """A class name without case, spaces and punctuation, synonyms made one."""
    bare = "".join(character for character in name.casefold() if character.isalnum())
    return _CANONICAL.get(bare, bare)


@dataclass(frozen=True, slots=True)
class Category:
    """One row of a COCO category table."""

    id: int
    name: str
    supercategory: str | None = None


# differences that a message shows
_NAMED = 3


@dataclass(frozen=True)
class Categories:
    """The data set's category table, ordered by id.

    Raises DataError for an id that is not a whole number from 0, a name that is no text, and an id
    that occurs twice.
    """

    items: tuple[Category, ...]

    def __post_init__(self) -> None:
        seen: dict[int, Category] = {}
        for category in self.items:
            if type(category.id) is not int or not 0 <= category.id < 2**31:
                raise DataError(
                    f"a category id must be a whole number from 0 to {2**31 - 1}, got "
                    f"{category.id!r:.40} for {category.name!r:.60}"
                )
            if not isinstance(category.name, str) or not category.name.strip():
                raise DataError(f"category {category.id} has no name (got {category.name!r})")
            if category.id in seen:
                raise DataError(
                    f"category id {category.id} occurs twice: {seen[category.id].name!r} and "
                    f"{category.name!r}"
                )
            seen[category.id] = category
        object.__setattr__(self, "items", tuple(seen[key] for key in sorted(seen)))

    @classmethod
    def from_coco(cls, rows: Iterable[Mapping[str, Any]]) -> "Categories":
        """From the `categories` list of a COCO file."""
        items: list[Category] = []
        for position, row in enumerate(rows):
            if not isinstance(row, Mapping) or "id" not in row or "name" not in row:
                raise DataError(f"category {position} needs an `id` and a `name`, got {row!r}")
            parent = row.get("supercategory")
            name, parent_name = row["name"], None if parent is None else str(parent)
            items.append(Category(_as_whole(row["id"]), name, parent_name))
        return cls(tuple(items))

    def to_json(self) -> list[dict[str, Any]]:
        """The same as a COCO `categories` list; `from_coco` reads it back."""
        return [
            {"id": item.id, "name": item.name}
            | ({} if item.supercategory is None else {"supercategory": item.supercategory})
            for item in self.items
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __contains__(self, category_id: object) -> bool:
        return category_id in self._by_id

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """Category ids, ascending."""
        return tuple(item.id for item in self.items)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names in the order of the ids."""
        return tuple(item.name for item in self.items)

    @cached_property
    def _by_id(self) -> dict[int, Category]:
        return {item.id: item for item in self.items}

    @cached_property
    def _by_exact(self) -> dict[str, list[Category]]:
        return _grouped(self.items, [item.name for item in self.items])

    @cached_property
    def _by_normalised(self) -> dict[str, list[Category]]:
        return _grouped(self.items, [normalised(item.name) for item in self.items])

    def by_id(self, category_id: int) -> Category:
        """The category with that id. Raises DataError where there is none."""
        if category_id not in self._by_id:
            raise DataError(f"no category has the id {category_id}; {self.describe_ids()}")
        return self._by_id[category_id]

    def find(self, name: str) -> Category | None:
        """As `by_name`, but None for a name that the table does not have."""
        found = self._by_exact.get(name) or self._by_normalised.get(normalised(name)) or []
        if len(found) > 1:
            ids = ", ".join(str(item.id) for item in found)
            raise DataError(f"{len(found)} categories are called {name!r} (ids {ids}): use the id")
        return found[0] if found else None

    def by_name(self, name: str) -> Category:
        """The category of that name; case, spaces, hyphens and common synonyms do not matter.

        Raises DataError for an unknown or ambiguous name.
        """
        found = self.find(name)
        if found is None:
            raise DataError(f"no category is called {name!r}.{nearest(name, self.names)}")
        return found

    def unknown(self, category_ids: ArrayLike) -> list[int]:
        """Those of `category_ids` that the table does not have, ascending, each once."""
        present = np.unique(np.asarray(category_ids, dtype=np.int64))
        return [int(value) for value in present if int(value) not in self._by_id]

    def differences(self, other: "Categories", ours: str = "here", theirs: str = "there") -> str:
        """The first ids that have another name in the other table, "" where there are none:
        `2: 'red' here, 'cat' there`. Supercategories make no difference.
        """
        mine, others = ({item.id: item.name for item in each.items} for each in (self, other))
        differing = [
            f"{key}: {mine.get(key, 'missing')!r} {ours}, {others.get(key, 'missing')!r} {theirs}"
            for key in sorted(mine.keys() | others)
            if mine.get(key) != others.get(key)
        ]
        more = f" and {len(differing) - _NAMED} more" if len(differing) > _NAMED else ""
        return "; ".join(differing[:_NAMED]) + more

    def describe_ids(self) -> str:
        """One clause for messages: how many ids there are, and between which."""
        if not self.items:
            return "the category table is empty"
        return f"the table has {len(self)} ids between {self.ids[0]} and {self.ids[-1]}"


@dataclass(frozen=True)
class ClassSpace:
    """Raw category ids <-> logit index of a student.

    `raw`: the index is the id (COCO: 91 logits, the unused ones included, as the official DETRs
    have them). `contiguous`: the index is the position in the table.

    Raises DataError for raw ids that are far larger than there are categories.
    """

    kind: Literal["raw", "contiguous"]
    categories: Categories
    _ids: NDArray[np.int64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.kind not in ("raw", "contiguous"):
            raise DataError(f"a class space is `raw` or `contiguous`, got {self.kind!r}")
        ids = np.asarray(self.categories.ids, np.int64)
        largest = int(ids.max(initial=-1))
        if self.kind == "raw" and largest >= max(_RAW_FROM, _RAW_TIMES * len(ids)):
            raise DataError(
                f"category ids go up to {largest}, with {len(ids)} categories: a student with a "
                "logit for each number up to that would be mostly unused logits. Number them anew: "
                "data.class_space=contiguous"
            )
        object.__setattr__(self, "_ids", ids)

    @property
    def n_classes(self) -> int:
        """Logits per query."""
        if self.kind == "contiguous":
            return len(self.categories)
        return int(self._ids.max(initial=-1)) + 1

    @property
    def names(self) -> tuple[str, ...]:
        """Name of every logit, `""` where unused."""
        if self.kind == "contiguous":
            return self.categories.names
        named = dict(zip(self.categories.ids, self.categories.names, strict=True))
        return tuple(named.get(index, "") for index in range(self.n_classes))

    def to_index(self, category_ids: ArrayLike) -> NDArray[np.int64]:
        """Logit indices, int64, of raw category ids. Raises DataError for ids not in the table."""
        ids = np.asarray(category_ids, np.int64)
        # ids are ascending; no table as long as the largest is needed
        place = np.minimum(np.searchsorted(self._ids, ids), max(0, len(self._ids) - 1))
        known = self._ids[place] == ids if len(self._ids) else np.zeros(ids.shape, bool)
        index = np.where(known, ids if self.kind == "raw" else place, -1)
        if (index < 0).any():
            wrong = self.categories.unknown(ids.ravel())
            raise DataError(f"category ids {wrong[:5]} are not in the data set's table")
        return index

    def to_category(self, index: ArrayLike) -> NDArray[np.int32]:
        """Raw category ids, int32, of logit indices (an unused raw logit keeps its number)."""
        rows = np.asarray(index, np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= self.n_classes):
            raise DataError(f"logit indices must lie in 0..{self.n_classes - 1}")
        if self.kind == "raw":
            return rows.astype(np.int32)
        return np.asarray(self.categories.ids, np.int32)[rows]


def _as_whole(value: Any) -> Any:
    """Some tools write ids as floats; anything else stays as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _grouped(items: Sequence[Category], keys: Sequence[str]) -> dict[str, list[Category]]:
    groups: dict[str, list[Category]] = {}
    for item, key in zip(items, keys, strict=True):
        groups.setdefault(key, []).append(item)
    return groups


def check_same_categories(wanted: Categories, found: Categories, where: object) -> None:
    """Refuse boxes of another category table.

    Raises:
        DataError: an id is missing or has another name; the first differences are shown.
    """
    if differing := wanted.differences(found):
        raise DataError(f"the categories of the training data and of {where} differ: {differing}")
