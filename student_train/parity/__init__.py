"""Parity: a folder of golden sets, recomputed as far as the installed students cover them.

`run_parity(folder)` gives one `Row` for each compared output, with its largest error and the error
allowed. Sets of families that are not installed give one skipped row each, so that nothing is
passed over in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from box_store.errors import nearest
from student_train.errors import CheckpointError, ConfigError
from student_train.models import FAMILIES
from student_train.parity.case import Case, Setup
from student_train.parity.criteria import check_criterion
from student_train.parity.family import FamilyParity
from student_train.parity.golden import GoldenStudent
from student_train.parity.rows import Row, skipped
from student_train.parity.selection import check_fusion, check_top_k
from student_train.parity.setups import SETUPS
from student_train.parity.students import check_student

__all__ = [
    "Row",
    "family_parity",
    "golden_sets",
    "iterate_parity",
    "run_parity",
    "setup_of",
]


@cache
def _families() -> tuple[FamilyParity, ...]:
    """Parity of every family that has a `parity.py` in its folder, in the families' order."""
    modules = (f"{family.package}.parity" for family in FAMILIES.values())
    return tuple(import_module(name).PARITY for name in modules if find_spec(name) is not None)


def family_parity(name: str) -> FamilyParity | None:
    """How the set of a student is compared, by the set's name; None for a family that is not
    installed.
    """
    begin = name.split("_")[0]
    return next((family for family in _families() if begin in family.sets), None)


def setup_of(name: str) -> Callable[[Case], Setup] | None:
    """How the cases of a golden set of losses are put to our criterion, by the set's name or what
    stands before its last underscores; None for a set of another kind.
    """
    setups = dict(SETUPS)
    for family in _families():
        setups |= family.criteria
    while name not in setups and "_" in name:
        name = name.rpartition("_")[0]
    return setups.get(name)


def golden_sets(folder: Path) -> list[str]:
    """Names of the sets in a folder, students first, each once.

    Raises CheckpointError if there is no such folder, or no golden set in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"no folder of golden sets at {folder}")
    students = sorted(path.name.removesuffix(".keys.json") for path in folder.glob("*.keys.json"))
    arrays = {path.name.removesuffix(".npz") for path in folder.glob("*.npz")}
    others = sorted(
        name
        for name in arrays - set(students)
        if not name.endswith(".train")
        and ((folder / f"{name}.json").is_file() or name == "postprocess_focal")
    )
    if not students and not others:
        raise CheckpointError(
            f"{folder} holds no golden set: NAME.keys.json and NAME.npz, or NAME.json and NAME.npz"
        )
    return students + others


def iterate_parity(
    folder: Path, sets: Sequence[str] | None = None, double: bool = True
) -> Iterator[Row]:
    """Rows as they are computed, set by set.

    `sets` limits them to some by name; `double` adds comparisons in float64, which take twice as
    long and see errors that float32 hides. Raises CheckpointError for damaged files, ConfigError
    for an unknown set.
    """
    folder = Path(folder)
    known = golden_sets(folder)
    for name in sets or ():
        if name not in known:
            raise ConfigError([f"{folder} has no golden set {name!r}.{nearest(name, known)}"])
    for name in known if sets is None else sets:
        yield from _check(folder, name, double)


def run_parity(folder: Path, sets: Sequence[str] | None = None, double: bool = True) -> list[Row]:
    """All rows of `iterate_parity`."""
    return list(iterate_parity(folder, sets, double))


def _check(folder: Path, name: str, double: bool) -> list[Row]:
    if setup := setup_of(name):
        return check_criterion(folder, name, setup)
    if name == "teach_fusion":
        return check_fusion(folder, name)
    if name == "postprocess_focal":
        return check_top_k(folder, name)
    if (folder / f"{name}.keys.json").is_file():
        family = family_parity(name)
        if family is not None:
            return check_student(GoldenStudent.open(folder, name), family, double)
        return [skipped(name, f"no student of the family {name.split('_')[0]!r} is installed")]
    return [skipped(name, "no installed student is trained with this loss")]
