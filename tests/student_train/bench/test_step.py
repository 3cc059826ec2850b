"""The measurements of `student-train bench`, on a student that takes no time."""

import json
import math
from pathlib import Path
from random import Random
from typing import Any

import pytest

from box_store.errors import UsageError
from box_store.measure.paired import Cost, Interval, in_turns, ratio
from student_train import cli
from student_train.bench.memory import worker_memory
from student_train.bench.teachers import parse_teachers
from student_train.presets import load_preset

CLOCKS = ("wall", "cpu")
TINY = ("--size", "64x64", "--batch", "1", "--steps", "1", "device=cpu", "data.workers=0")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Run the command; its rows, which are in the file too."""

    def call(*arguments: str) -> Any:
        out = tmp_path / "gpu" / "rows.json"
        words = ["student-train", "bench", *arguments, *TINY, "--json", "--out", str(out)]
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        assert ended.value.code in (0, None), printed.err
        content = json.loads(printed.out)
        assert json.loads(out.read_text()) == content
        return content

    return call


def test_teachers_are_measured_in_turns_and_against_the_loop(bench: Any) -> None:
    found = bench("--preset", "dino-micro", "--teachers", "3,0", "--boxes", "5")
    assert found["kind"] == "teachers"
    assert {"device", "versions", "source", "attention"} <= set(found)
    none, three = found["rows"]
    assert (none["teachers"], three["teachers"]) == (0, 3)
    assert none["overhead"] == none["overhead_cpu"] == {"median": 0, "low": 0, "high": 0}
    for row in (none, three):
        assert row["speedup"]["median"] > 0
        assert row["matching_speedup"]["median"] > 0
        assert row["matching_share"]["median"] > 0
        assert all(row[part][clock] > 0 for part in ("step", "losses", "loop") for clock in CLOCKS)
    # teachers bring no wait of their own
    assert none["waits"] == three["waits"] == 1


def test_shares_are_those_of_a_step(bench: Any) -> None:
    found = bench("--preset", "dino-micro", "--profile")
    assert found["kind"] == "shares"
    wanted = {"backbone", "encoder", "decoder", "denoising", "matching", "backward", "optimiser"}
    assert wanted | {"losses"} <= set(found["seconds"])
    assert all(found["seconds"][part] > 0 for part in wanted)


def test_the_loader_beside_the_step(bench: Any) -> None:
    found = bench("--preset", "dino-micro", "--data")
    assert found["kind"] == "loader"
    assert found["loader_images_per_second"] > 0
    assert found["step_images_per_second"] > 0
    assert 0 <= found["data_wait"] <= 1
    assert found["decode_ms"] > 0
    assert 0 < found["shipped_mib"] < found["decoded_mib"]


def test_loader_processes_do_not_grow() -> None:
    config = load_preset("dino-micro")
    found = worker_memory(config, 2, 20, images=3000, annotations=24_000, workers=1)
    assert len(found) == 6
    # what the first epoch fills: caches, arenas, imports
    assert 0 < found[-1] < found[1] + 12, found
    assert not worker_memory(config, 2, 1, images=40, annotations=40, workers=0)


def test_presets_one_by_one(bench: Any) -> None:
    found = bench("--presets", "dino-micro")
    (row,) = found
    assert (row["kind"], row["preset"]) == ("preset", "dino-micro")
    assert row["parameters"] > 0
    assert row["seconds"]["torch"] > 0
    assert row["memory_gib"]["torch"] > 0
    assert row["steps"] >= 1
    # gradients are compared with Triton's
    assert row["gradient_difference"] is None


def test_a_preset_that_takes_long_is_measured_with_fewer_steps(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("student_train.bench.presets._LONG_S", 0.0)
    (row,) = bench("--presets", "dino-micro", "--steps", "4")
    assert row["steps"] == 1


def test_an_interval_holds_the_median_nine_times_in_ten() -> None:
    random = Random(0)
    held = 0
    for _ in range(400):
        # skewed, as times are
        found = Interval.of([random.expovariate(1) for _ in range(11)])
        assert found.low <= found.median <= found.high
        held += found.low <= math.log(2) <= found.high
    assert 0.9 <= held / 400 < 0.98
    assert Interval.of([3.0]) == (3, 3, 3)


def test_in_turns_no_arm_is_always_first() -> None:
    seen: list[str] = []
    found = in_turns(6, "abc", lambda arm: seen.append(arm) or len(seen))
    assert ["".join(seen[i : i + 3]) for i in range(0, 18, 3)] == [
        "abc", "cba", "bca", "acb", "cab", "bac",
    ]  # fmt: skip
    assert found["a"] == [1, 6, 9, 10, 14, 17]


def test_ratios_are_those_of_a_round() -> None:
    # the machine became ten times slower after the first round
    base = [Cost(1.0, 1.0), Cost(10.0, 1.0), Cost(10.0, 1.0)]
    more = [Cost(1.1, 1.02), Cost(11.0, 1.02), Cost(11.0, 1.02)]
    wall, cpu = ratio(more, base)
    assert wall.median == pytest.approx(0.1)
    assert cpu == pytest.approx((0.02, 0.02, 0.02))
    assert cpu.percent() == "+2.0 % (+2.0 .. +2.0)"


def test_numbers_of_teachers() -> None:
    assert parse_teachers("3, 0,1,1") == (0, 1, 3)
    with pytest.raises(UsageError, match="0,1,3"):
        parse_teachers("three")
