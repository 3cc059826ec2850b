"""Teachers and machines that do not get as far as an image."""

from dataclasses import replace

import pytest

from teacher_infer.run.prepare import probe
from teacher_infer.workers.worker import Loaded

from .conftest import LOADED, FakePool


def test_a_worker_that_never_starts_fails_its_teacher_alone(bench):
    pool = FakePool(loads=lambda n, spec: None if spec.name == "dead" else LOADED)
    dead, alive = bench.job("dead"), bench.job("alive")
    bench.run(pool, dead, alive)
    assert "died 3 times while starting: out of luck" in dead.error
    assert dead.exit_code == 1
    assert pool.started.count("dead") == 3
    assert len(bench.statuses("alive")) == 20


def test_a_teacher_that_cannot_be_loaded_fails_alone_and_at_once(bench):
    pool = FakePool(loads=lambda n, spec: "no such weights" if spec.name == "dead" else LOADED)
    dead, alive = bench.job("dead", ",workers=2"), bench.job("alive")
    bench.run(pool, dead, alive)
    assert dead.error == "no such weights"
    assert "dead" not in bench.store.teachers
    assert len(bench.statuses("alive")) == 20


def test_a_teacher_that_knows_nothing_of_the_data_set(bench):
    stranger = Loaded(("unicorn", "yeti"), "MIT", {}, "", "cpu")
    job = bench.job()
    bench.run(FakePool(loads=lambda n, spec: stranger), job)
    assert "none of its 2 classes (unicorn, yeti)" in job.error
    assert "map.CLASS=CATEGORY" in job.error
    assert bench.store.teachers == {}


def test_machines_that_hold_different_models(bench):
    other = replace(LOADED, class_names=("person", "car", "unicorn"), host="node-2")
    job = bench.job(keys=",workers=2")
    bench.run(FakePool(loads=lambda n, spec: other if n else LOADED), job)
    assert "two workers loaded different models" in job.error
    assert "(on node-2)" in job.error


@pytest.mark.parametrize("bad", [0, 1])
def test_a_machine_whose_copy_of_the_weights_is_damaged_is_refused_by_name(bench, bad):
    damaged = replace(LOADED, weights_sha256="cd" * 32, host="node-2")
    job = bench.job(keys=",workers=2")
    bench.run(FakePool(loads=lambda n, spec: damaged if n == bad else LOADED), job)
    assert "a worker loaded other weights" in job.error
    assert "(on node-2): expected sha256 " + LOADED.weights_sha256[:12] in job.error
    assert "got cdcdcdcdcdcd" in job.error
    assert bad or "tiny" not in bench.store.teachers


def test_a_probe_loads_a_teacher_and_lets_it_go(bench):
    pool = FakePool()
    assert probe(pool, bench.job().spec) == LOADED
    assert pool.closed
    with pytest.raises(Exception, match="tiny: no such weights"):
        probe(FakePool(loads=lambda n, spec: "no such weights"), bench.job().spec)
    with pytest.raises(Exception, match="tiny cannot be loaded: out of luck"):
        probe(FakePool(loads=lambda n, spec: None), bench.job().spec)
