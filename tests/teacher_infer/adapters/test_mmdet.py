"""MMDetection: every kind of detector runs without a compiler, as mmdet itself would run it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from box_store.boxes import Boxes
from box_store.errors import UsageError
from teacher_infer.adapters import mmdet as adapter
from teacher_infer.adapters.checkpoints import MMENGINE_LOG, read_checkpoint
from teacher_infer.adapters.loading import quiet
from teacher_infer.adapters.mmdet_configs import config_files
from teacher_infer.adapters.protocol import AdapterError, AdapterSpec
from teacher_infer.teachers.loaded import load_teacher, weights_files, weights_sha256

Pictures = dict[str, np.ndarray]


def spec(model: str | Path, weights: str | Path = "random", **options: str) -> AdapterSpec:
    return AdapterSpec(
        "mmdet",
        str(model),
        score_floor=0.02,
        threads=1,
        options={"weights": str(weights)} | options,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "size"),
    [
        ("mask-rcnn_r50_fpn_1x_coco", 96),
        ("rtmdet_tiny_8xb32-300e_coco", 96),
        ("yolox_tiny_8xb8-300e_coco", 96),
        ("fcos_r50-caffe_fpn_gn-head_1x_coco", 96),
        ("atss_r50_fpn_1x_coco", 96),
        # its 900 queries are chosen among the tokens, so there have to be as many
        ("dino-4scale_r50_8xb2-12e_coco", 256),
        ("deformable-detr_r50_16xb2-50e_coco", 96),
    ],
)
def test_families(config: str, size: int, pictures: Pictures) -> None:
    teacher = load_teacher(spec(config, image_size=str(size)))
    assert len(teacher.class_names) == 80
    found = teacher.predict([pictures["first"], pictures["second"]])
    assert [(boxes.width, boxes.height) for boxes in found] == [(64, 48), (64, 48)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A config file and a checkpoint as mmengine's runner leaves it: three classes, and a log."""
    from teacher_infer.adapters import mmcv_ops

    mmcv_ops.install()
    folder = tmp_path_factory.mktemp("mmdet")
    with quiet():
        from mmengine.config import Config
        from mmengine.logging import MessageHub

        named = adapter._config_path(spec("retinanet_r18_fpn_1x_coco"))
        config = Config.fromfile(named)
        config.model.bbox_head.num_classes = 3
        config.metainfo = {"classes": ("person", "car", "kite")}
        config.test_dataloader.dataset.pipeline[1].scale = (120, 90)
        config.dump(folder / "config.py")
        model: Any = adapter.load(spec(folder / "config.py"))._model
        torch.manual_seed(5)
        torch.nn.init.normal_(model.bbox_head.retina_cls.weight, std=0.2)
        torch.nn.init.zeros_(model.bbox_head.retina_cls.bias)
        log = MessageHub.get_instance("trained")
        log.update_scalar("train/loss", 0.5)
        meta = {"dataset_meta": {"CLASSES": ("person", "car", "kite")}, "epoch": 3}
        plain = {"state_dict": model.state_dict(), "meta": meta}
        torch.save(plain, folder / "plain.pth")
        torch.save(plain | {"message_hub": log.state_dict()}, folder / "epoch_3.pth")
    return folder / "config.py", folder / "epoch_3.pth"


@pytest.mark.slow
def test_it_predicts_what_mmdets_own_inference_does(
    trained: tuple[Path, Path], images: list[np.ndarray]
) -> None:
    config, checkpoint = trained
    teacher = load_teacher(spec(config, checkpoint))
    assert teacher.class_names == ("person", "car", "kite")
    assert weights_files(spec(config, checkpoint)) == [config, checkpoint]
    with quiet():
        from mmdet.apis import inference_detector, init_detector

        model = init_detector(str(config), str(checkpoint.with_name("plain.pth")), device="cpu")
        model.bbox_head.test_cfg.score_thr = 0.02
        for image in images:
            bgr = np.ascontiguousarray(image[..., ::-1])
            theirs: Any = inference_detector(model, bgr).pred_instances
            ours = teacher.predict([image])[0]
            assert len(ours) == len(theirs) > 0
            assert ours.scores == pytest.approx(theirs.scores.numpy(), abs=1e-6)
            assert ours.class_ids.tolist() == theirs.labels.tolist()
            assert ours.boxes_xyxy == pytest.approx(theirs.bboxes.numpy(), abs=1e-3)


@pytest.mark.slow
def test_a_checkpoint_with_a_log_is_read_without_running_anything(
    trained: tuple[Path, Path],
) -> None:
    _, checkpoint = trained
    with pytest.raises(AdapterError, match="can't be read as a checkpoint"):
        read_checkpoint(checkpoint)
    found = read_checkpoint(checkpoint, MMENGINE_LOG)
    assert "backbone.conv1.weight" in found.groups["state_dict"]
    assert found.meta["epoch"] == 3


@pytest.mark.slow
def test_a_checkpoint_of_another_model_is_refused(trained: tuple[Path, Path]) -> None:
    _, checkpoint = trained
    with pytest.raises(AdapterError, match=r"doesn't fit.*retina_cls.*Check the number of"):
        load_teacher(spec("retinanet_r18_fpn_1x_coco", checkpoint))


@pytest.mark.slow
def test_class_names_have_to_be_as_many_as_classes(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    config, checkpoint = trained
    classes = tmp_path / "two.txt"
    classes.write_text("person\ncar\n")
    with pytest.raises(AdapterError, match="predicts 3 classes, but 2 class names"):
        load_teacher(spec(config, checkpoint, classes=str(classes)))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (AdapterSpec("mmdet", "retinanet_r18_fpn_1x_coco"), UsageError, "needs weights=FILE"),
        (
            spec("retinanet_r18_fpn_1x_cocoo"),
            UsageError,
            "Did you mean 'retinanet_r18_fpn_1x_coco'",
        ),
        (spec("folder/mine.py"), AdapterError, "config not found: expected a file at folder"),
        (spec("retinanet_r18_fpn_1x_coco", "no.pth"), AdapterError, "weights not found"),
    ],
)
def test_what_cant_be_found_is_said_before_anything_is_loaded(
    given: AdapterSpec, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        weights_files(given)


@pytest.mark.slow
def test_configs_that_mmdet_cant_use_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("model = dict(type='RetinaNett')")
    with pytest.raises(AdapterError, match=r"can't build this model.*RetinaNett"):
        load_teacher(spec(broken))
    broken.write_text("model = dict(")
    with pytest.raises(AdapterError, match="can't read this config"):
        load_teacher(spec(broken))
    broken.write_text("optimizer = 1")
    with pytest.raises(AdapterError, match="has no `model`"):
        load_teacher(spec(broken))


def test_a_config_is_all_the_files_that_it_inherits_from(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "schedule.py").write_text("lr = 0.1\n")
    (tmp_path / "base" / "model.py").write_text("_base_ = './schedule.py'\nmodel = dict()\n")
    (tmp_path / "base" / "data.yaml").write_text("_base_: schedule.py\nbatch: 2\n")
    (tmp_path / "base" / "lazy.py").write_text("from .model import *\n")
    config = tmp_path / "config.py"
    config.write_text("_base_ = ['base/model.py', '{{ fileDirname }}/base/data.yaml']\n")
    names = [path.name for path in config_files(config)]
    assert names == ["config.py", "model.py", "data.yaml", "schedule.py"]
    config.write_text("with read_base():\n    from .base.model import *\n")
    assert [path.name for path in config_files(config)] == ["config.py", "model.py", "schedule.py"]
    config.write_text("_base_ = 'gone.py'\n")
    with pytest.raises(AdapterError, match=r"inherits from .*gone.py, which is not there"):
        config_files(config)
    config.write_text("_base_ = 'mmdet::_base_/default_runtime.py'\n")
    assert config_files(config)[1].name == "default_runtime.py"


def test_an_inherited_config_is_part_of_the_teacher(tmp_path: Path) -> None:
    (tmp_path / "base.py").write_text("model = dict(type='RetinaNet')\n")
    (tmp_path / "config.py").write_text("_base_ = 'base.py'\n")
    asked = AdapterSpec("mmdet", str(tmp_path / "config.py"), options={"weights": "random"})
    before = weights_sha256(weights_files(asked))
    (tmp_path / "base.py").write_text("model = dict(type='FCOS')\n")
    assert weights_sha256(weights_files(asked)) != before


@pytest.mark.slow
def test_nms_can_be_turned_off(
    images: list[np.ndarray], most_overlap: Callable[[Boxes], float]
) -> None:
    found = {}
    name = "faster-rcnn_r50_fpn_1x_coco"
    for iou in (None, "none", 0.3):
        asked = replace(spec(name, image_size="96"), score_floor=0.0, nms_iou=iou)
        teacher = load_teacher(asked)
        found[iou] = most_overlap(teacher.predict(images[:1])[0]), teacher.runtime["nms"]
    assert found["none"][0] > 0.5 >= found[None][0] > 0.3 >= found[0.3][0] - 1e-5
    assert [one[1] for one in found.values()] == ["0.5 by mmdet (nms)", "none", "0.3"]
