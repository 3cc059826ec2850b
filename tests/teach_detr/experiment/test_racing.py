"""Arms that race, and experiments whose students fail or learn nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from teach_detr.experiment import experiment as module
from teach_detr.experiment import read_experiment
from teach_detr.experiment.grid import Cell, Grid
from teach_detr.experiment.outcome import gather
from teach_detr.experiment.racing import heats
from teach_detr.experiment.tables import summary_lines
from teach_detr.experiment.workers import Ended, Finished, Job
from teach_detr.runs.stages import StageError, Stages
from tests.teach_detr.experiment.conftest import in_this_process, run


def test_a_race_leaves_out_what_is_sure(file: Path, trained: list[Job]) -> None:
    text = file.read_text().replace("seeds = [0, 1]", "seeds = [0, 1, 2, 3]\nrace = true")
    file.write_text(text.replace("[conditions.missing]\nmissing = 0.5\n", ""))
    outcome = run(file)
    names = [job.name for job in trained]
    # better from the start: three seeds say so, and the fourth is not trained
    assert sum("taught" in name for name in names) == 3
    assert outcome["conditions"]["complete"]["taught"]["verdict"] == "better"
    # an arm that nothing can be said of runs to the end, and the reference with it
    unsure = outcome["conditions"]["complete"]["astray"]["difference"]
    assert (sum("astray" in name for name in names) == 4) == (unsure["n_seeds"] == 4)
    before = len(trained)
    assert run(file)["conditions"] == outcome["conditions"]
    assert len(trained) == before


def test_a_race_looks_from_the_third_seed_on() -> None:
    cells = [Cell("c", arm, seed) for seed in (7, 8, 9, 5, 6) for arm in ("none", "a")]
    found = list(heats(cells, (7, 8, 9, 5, 6)))
    assert [[cell.seed for cell in heat] for heat in found] == [[7, 7, 8, 8, 9, 9], [5, 5], [6, 6]]
    assert list(heats(cells[:2], (7,))) == [cells[:2]]


def test_nothing_but_failures_is_an_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_here(jobs: Sequence[Job], devices: Any, finished: Finished, _: Any) -> None:
        for job in jobs:
            finished(Ended(job, 1.0, "no memory"))

    monkeypatch.setattr(module, "run_here", run_here)
    monkeypatch.setattr(Stages, "python", in_this_process)
    with pytest.raises(StageError, match=r"no run of .* came to its end.*no memory"):
        run(file)


def test_students_that_learned_nothing_are_not_compared_in_silence(
    file: Path, trained: list[Job]
) -> None:
    run(file)
    grid = Grid(read_experiment(file))
    outcome = gather(grid, {})
    assert not any("too little" in line for line in summary_lines(outcome))
    none = outcome.conditions["complete"]["none"]
    none.mean["AP"] = 0.004
    assert any(
        line.startswith("complete: none reaches AP 0.4 only") for line in summary_lines(outcome)
    )
