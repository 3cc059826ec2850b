import json
import statistics
from pathlib import Path

import pytest
from rich.console import Console

from teacher_infer.bench.inputs import draw_images, repeated
from teacher_infer.bench.memory import Look, MemoryResult, memory_of_run
from teacher_infer.bench.rate import BenchResult, PoolRuns, Run
from teacher_infer.cli import main
from teacher_infer.data.dataset import load_dataset
from teacher_infer.teachers.parsing import parse_teacher
from teacher_infer.workers.local_pool import LocalPool


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as left:
        main(["bench", *map(str, arguments)])
    said = capsys.readouterr()
    return left.value.code or 0, said.out, said.err


def test_ratios_are_those_of_pairs_of_one_round() -> None:
    bare = [Run(10.0, 0.1), Run(20.0, 0.05), Run(5.0, 0.2)]
    pool = PoolRuns("Ray", "two machines", [Run(9.0, 0.1), Run(22.0, 0.1), Run(5.0, 0.1)])
    result = BenchResult(64, 1, bare, [pool])
    assert "of a core" not in result.text()
    busy = PoolRuns("Ray", "two machines", [Run(9.0, 0.1, 0.021)])
    assert "Ray's own processes: 2.1% of a core" in BenchResult(64, 1, bare[:1], [busy]).text()
    assert result.ratios(pool) == pytest.approx([0.9, 1.1, 1.0])
    assert result.cpu_ratios(pool) == pytest.approx([1.0, 0.5, 2.0])
    assert "median 1.000 (0.900, 1.100, 1.000) of the bare loop's rate" in result.text()
    found = result.as_dict()["pools"]["Ray"]
    assert (found["ratio"], found["cpu_ratio"]) == pytest.approx((1.0, 1.0))


def test_bench_compares_the_service_with_a_bare_loop(capsys, make_folder, teacher, tmp_path):
    out = tmp_path / "rates.json"
    base = ["--local", "--data", make_folder(5), "--split", "train"]
    more = ["--count", 40, "--rounds", 2, "--json", "--out", out]
    code, said, _ = run(capsys, *base, "--teacher", f"tiny={teacher},threads=1", *more)
    assert code == 0
    found = json.loads(said)
    assert (found["images"], found["threads"]) == (40, 1)
    local = found["pools"]["local"]
    pairs = list(zip(local["runs"], found["bare"], strict=True))
    assert len(pairs) == 2
    assert local["ratio"] == pytest.approx(
        statistics.median(ours["images_per_s"] / bare["images_per_s"] for ours, bare in pairs)
    )
    assert all(run["cpu_s_per_image"] > 0 for pair in pairs for run in pair)
    assert json.loads(out.read_text()) == found
    code, _, err = run(capsys, *base, "--teacher", f"tiny={teacher},workers=2")
    assert (code, "one teacher with one worker" in err) == (2, True)


def test_files_stand_for_as_many_images_as_asked(make_folder) -> None:
    dataset = load_dataset(make_folder(3), ["train"], None, None)
    many = repeated(dataset, 7)
    assert many.image_ids == [1, 2, 3, 4, 5, 6, 7]
    names = [task.file_name for task in dataset.tasks]
    assert [task.file_name for task in many.tasks] == [*names, *names, names[0]]
    assert many.info.n_images == 7


def test_memory_is_looked_at_ten_times_while_a_run_goes_on(tmp_path: Path, teacher) -> None:
    data = draw_images(tmp_path / "data", 3, 64, 48)
    dataset = repeated(load_dataset(data, ["drawn"], None, None), 60)
    spec = parse_teacher(f"tiny={teacher},threads=1,batch_size=2")
    found = memory_of_run(dataset, spec, LocalPool(isolate=True), Console(stderr=True))
    assert [look.n_images for look in found.looks] == list(range(6, 61, 6))
    for look in found.looks:
        assert look.driver > 20
        assert look.worker > 20
        assert look.worker != look.driver
        assert look.ray == 0
    assert not list(tmp_path.glob("**/store.json"))


def test_growth_is_counted_from_the_second_look() -> None:
    looks = [Look(10, 90, 50, 5), Look(20, 100, 60, 5), Look(30, 103, 59, 5)]
    found = MemoryResult("here", 20.0, looks)
    assert (found.growth("driver"), found.growth("worker"), found.growth("ray")) == (3, -1, 0)
    assert found.text().splitlines()[-1].split() == ["growth", "+3.0", "-1.0", "+0.0"]
