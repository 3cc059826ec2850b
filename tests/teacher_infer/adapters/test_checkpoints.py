"""Checkpoints as training scripts leave them: read, or refused showing what they hold."""

import argparse
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from teacher_infer.adapters.checkpoints import load_checkpoint, read_checkpoint
from teacher_infer.adapters.protocol import AdapterError, AdapterSpec
from teacher_infer.teachers.loaded import load_teacher


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


@pytest.fixture
def trained() -> nn.Module:
    torch.manual_seed(4)
    model = small()
    for value in model.parameters():
        nn.init.normal_(value)
    return model


def behind(prefix: str, model: nn.Module) -> dict[str, Any]:
    return {prefix + name: value for name, value in model.state_dict().items()}


def reference_script(model: nn.Module) -> dict[str, Any]:
    """As torchvision's references/detection/train.py saves it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    arguments = argparse.Namespace(lr=0.01, device="cuda", output_dir=Path("out"))
    saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    return saved | {"args": arguments}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: model.state_dict(),
        lambda model: OrderedDict(model.state_dict()),
        reference_script,
        lambda model: {"epoch": 3, "model_state_dict": model.state_dict()},
        lambda model: {"state_dict": behind("model.", model)},
        lambda model: {"model": behind("module.", model)},
        lambda model: {"model": behind("module._orig_mod.", model)},
        lambda model: {"model": {}, "model_ema": model.state_dict()},
        lambda model: {"ema": {"module": model.state_dict(), "updates": 7}},
        lambda model: {"model": model.state_dict(), "best": np.float64(0.4), "x": np.zeros(2)},
        lambda model: {"model": model.state_dict(), "log": defaultdict(list, loss=[1.0])},
        # averages fit as well, and are not taken
        lambda model: {"model_ema": small().state_dict(), "model": model.state_dict()},
        lambda model: {"teacher": {"0.weight": torch.zeros(1)}, "net": model.state_dict()},
    ],
)
def test_weights_are_found_whatever_they_are_wrapped_in(
    trained: nn.Module, tmp_path: Path, wrap: Any
) -> None:
    torch.save(wrap(trained), tmp_path / "c.pth")
    model = small()
    load_checkpoint(model, read_checkpoint(tmp_path / "c.pth"))
    for name, value in trained.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_what_does_not_fit_is_shown(trained: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    other = {"backbone.body.conv.weight": torch.zeros(3), "head.bias": torch.zeros(1)}
    torch.save({"epoch": 3, "weights": other}, path)
    with pytest.raises(AdapterError) as caught:
        load_checkpoint(small(), read_checkpoint(path))
    for said in ("its keys are epoch, weights", "backbone.body.conv.weight", "another model"):
        assert said in str(caught.value)
    fewer = dict(trained.state_dict())
    fewer["0.bias"] = torch.zeros(4)
    torch.save({"model": fewer}, path)
    with pytest.raises(AdapterError, match=r"first 0.bias: expected \[3\], got \[4\].*classes"):
        load_checkpoint(small(), read_checkpoint(path))
    del fewer["0.bias"]
    torch.save({"model": fewer}, path)
    with pytest.raises(AdapterError, match=r"1 of 7 tensors are missing.*first 0.bias"):
        load_checkpoint(small(), read_checkpoint(path))


@pytest.mark.parametrize("content", [{"epoch": 3, "lr": 0.1}, {}, [1, 2], 3.5])
def test_files_without_tensors_are_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(AdapterError, match=r"no tensors by name|expected a checkpoint"):
        read_checkpoint(tmp_path / "c.pth")


def test_code_is_not_run_and_its_class_is_named(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "sprung"),))

    torch.save({"model": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(AdapterError, match=r"torch\.save\(model\.state_dict\(\)") as caught:
        read_checkpoint(tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_what_stands_for_code_runs_nothing(tmp_path: Path) -> None:
    """The names that are let through build something empty, whatever they are called with."""

    class Made(argparse.Namespace):
        def __reduce__(self) -> tuple[object, ...]:
            return (argparse.Namespace, (), {"__dict__": 1, "state_dict": torch.zeros(2)})

    torch.save({"args": Made(), "w": torch.zeros(2)}, tmp_path / "c.pth")
    assert list(read_checkpoint(tmp_path / "c.pth").groups) == [""]


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"not a checkpoint"])
@pytest.mark.parametrize("name", ["c.pth", "c.safetensors"])
def test_damaged_files_are_a_sentence(tmp_path: Path, damage: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(damage)
    with pytest.raises(AdapterError, match="can't be read as"):
        read_checkpoint(tmp_path / name)


@pytest.mark.slow
def test_torchvisions_own_training_checkpoint_is_a_teacher(tmp_path: Path) -> None:
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    torch.manual_seed(1)
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    torch.save(reference_script(model), tmp_path / "w.pth")
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    options = {"weights": str(tmp_path / "w.pth"), "classes": str(tmp_path / "names.txt")}
    name = "ssdlite320_mobilenet_v3_large"
    teacher = load_teacher(AdapterSpec("torchvision", name, threads=1, options=options))
    assert teacher.class_names == ("__background__", "cat", "dog")
