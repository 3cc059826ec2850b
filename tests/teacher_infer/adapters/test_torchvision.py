"""torchvision's detection builders."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from box_store.boxes import Boxes
from box_store.errors import UsageError
from teacher_infer.adapters.protocol import AdapterError, AdapterSpec
from teacher_infer.teachers.loaded import load_teacher, weights_files

Pictures = dict[str, np.ndarray]
MODEL = "ssdlite320_mobilenet_v3_large"


def spec(model: str = MODEL, **options: str) -> AdapterSpec:
    return AdapterSpec("torchvision", model, score_floor=0.005, threads=1, options=options)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a model for two classes and the background, as a training script saves them."""
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    torch.manual_seed(2)
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    path = tmp_path_factory.mktemp("torchvision") / "model.pth"
    torch.save({"model": model.state_dict(), "epoch": 7}, path)
    (path.parent / "names.txt").write_text("cat\ndog\n")
    return path


@pytest.mark.slow
def test_it_predicts_what_the_model_does(checkpoint: Path, pictures: Pictures) -> None:
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    classes = str(checkpoint.parent / "names.txt")
    teacher = load_teacher(spec(weights=str(checkpoint), classes=classes))
    assert teacher.class_names == ("__background__", "cat", "dog")
    model = ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=3, score_thresh=0.005
    ).eval()
    model.load_state_dict(torch.load(checkpoint, weights_only=True)["model"])
    pixels = torch.from_numpy(pictures["odd"]).permute(2, 0, 1) / 255
    with torch.inference_mode():
        theirs = model([pixels])[0]
    ours = teacher.predict([pictures["odd"]])[0]
    assert len(ours) > 0
    assert ours.scores == pytest.approx(theirs["scores"][: len(ours)].numpy(), abs=1e-6)
    assert set(ours.class_ids.tolist()) <= {1, 2}


@pytest.mark.slow
def test_weights_for_other_classes_are_refused(checkpoint: Path) -> None:
    with pytest.raises(AdapterError, match="doesn't fit the model"):
        load_teacher(spec(weights=str(checkpoint)))


def test_class_names_are_part_of_the_teacher(checkpoint: Path) -> None:
    names = checkpoint.parent / "names.txt"
    asked = spec(weights=str(checkpoint), classes=str(names))
    assert weights_files(asked) == [checkpoint, names]


@pytest.mark.slow
def test_nms_can_be_turned_off(pictures: Pictures, most_overlap: Callable[[Boxes], float]) -> None:
    found = {}
    for iou in (None, "none", 0.3):
        asked = replace(spec(weights="random", image_size="96"), nms_iou=iou, top_k=300)
        teacher = load_teacher(replace(asked, score_floor=0.0))
        boxes = teacher.predict([pictures["first"]])[0]
        found[iou] = most_overlap(boxes), teacher.runtime["nms"]
    assert found["none"][0] > 0.55 >= found[None][0] > 0.3 >= found[0.3][0] - 1e-5
    assert [one[1] for one in found.values()] == ["0.55 by torchvision", "none", "0.3"]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (spec(), UsageError, "needs weights=FILE or weights=DEFAULT"),
        (spec("fasterrcnn_resnet50", weights="random"), UsageError, "Did you mean 'fasterrcnn_res"),
        (spec(weights="absent.pth"), AdapterError, "weights not found: expected a file at absent"),
    ],
)
def test_what_cant_be_found_is_said(
    given: AdapterSpec, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        weights_files(given)
    with pytest.raises(error, match=message):
        load_teacher(given)


def test_a_pickle_that_would_run_code_is_not_read(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"model": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(AdapterError, match="can't be read as a checkpoint"):
        load_teacher(spec(weights=str(tmp_path / "trap.pth")))
    assert not (tmp_path / "sprung").exists()


def test_a_device_that_isnt_there_is_named() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    from teacher_infer.adapters.loading import torch_device

    assert torch_device("auto") == "cpu"
    with pytest.raises(AdapterError, match="sees no CUDA device: use device=cpu"):
        torch_device("cuda:0")
    with pytest.raises(UsageError, match="device=gpu: expected cpu, cuda, cuda:N or auto"):
        torch_device("gpu")
