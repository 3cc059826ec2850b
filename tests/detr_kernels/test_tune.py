"""Tuning prints what was timed, stores nothing, and says where it cannot run."""

import pytest

pytest.importorskip("triton")

import torch

from detr_kernels import tune
from detr_kernels.deform_attn.triton_common import TUNING


def test_the_launch_parameters_are_put_back():
    before = dict(TUNING)
    with tune.tuned((512, 2, 1, 96)):
        assert {t.tile for t in TUNING.values()} == {512}
    assert before == TUNING


def test_what_the_kernels_take_is_among_the_candidates():
    assert {tuple(t) for t in TUNING.values()} <= set(tune.CANDIDATES)
    assert len(set(tune.CANDIDATES)) == len(tune.CANDIDATES)


def test_the_best_of_each_direction_is_marked():
    spent = [(2.0 + i, 30.0 - i) for i in range(len(tune.CANDIDATES))]
    lines = tune.report("enc4", "bfloat16", spent).splitlines()
    assert lines[0].startswith("enc4, bfloat16")
    assert "2.0000*" in lines[1]
    assert lines[1].count("*") == 1
    assert lines[-1].endswith("*")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys):
    assert tune.main(["--shapes", "small"]) == 1
    assert "needs a CUDA device" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tuning_on_a_gpu(capsys):
    before = dict(TUNING)
    assert tune.main(["--shapes", "small", "--seconds", "0.01"]) == 0
    assert capsys.readouterr().out.count("*") >= 2
    assert before == TUNING
