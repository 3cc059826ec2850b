"""Trained weights that others offer, by name, with their licence and what they were trained on.

Where they lie is as their authors' READMEs and transformers' documentation say, or, marked as such,
as public code that loads them does; none of them was downloaded for this project. AP is what the
authors' README says of the weights: of Peterande/D-FINE at 4a1f73a, Intellindust-AI-Lab/DEIM at
09d35d5, lyuwenyu/RT-DETR at 31e55a4, Atten4Vis/LW-DETR at 31b2bd6, roboflow/rf-detr at 35ac6ab (of
base: its first README).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from student_train.presets import all_presets, load_preset

_COCO = "COCO"
_OBJECTS = "Objects365"
_BOTH = "Objects365, then COCO"
ACADEMIC = "the images of Objects365 are for academic use"
NOT_FETCHED = (
    "Where they lie is as their authors' READMEs and transformers' documentation say, with a * as "
    "public code that loads them does: this project has downloaded none of them, and has not "
    "measured their AP."
)


@dataclass(frozen=True)
class KnownWeights:
    """One set of weights."""

    place: str
    """what `import` takes for those at the hub; for others a file, and who offers it"""
    preset: str
    """the settings that fit"""
    trained_on: str = _COCO
    licence: str = "Apache-2.0"
    ap_of_preset: bool = True
    """whether the AP that was published of the preset is that of these weights"""
    own_ap: float | None = None
    """on COCO val2017 in percent, published of these weights alone"""
    by_others: bool = False
    """whether nobody but others' code is known to give the name"""
    activation: str | None = None
    """to be said when they are imported, as no file tells it"""

    @property
    def ap(self) -> float | None:
        """On COCO val2017 in percent, as published; none where nobody did."""
        if self.own_ap is not None:
            return self.own_ap
        published = all_presets()[self.preset].published
        return published.ap if published is not None and self.ap_of_preset else None

    @property
    def notes(self) -> str:
        """What to mind."""
        notes = [ACADEMIC] if _OBJECTS in self.trained_on else []
        if self.activation is not None:
            notes.append(f"import with model.activation={self.activation}")
        if self.by_others:
            notes.append("the name is from code that loads it, not from its authors")
        return "; ".join(notes)

    def to_json(self) -> dict[str, Any]:
        """Everything."""
        return {
            "place": self.place,
            "preset": self.preset,
            "licence": self.licence,
            "trained_on": self.trained_on,
            "published_AP": self.ap,
            "notes": self.notes,
        }


def _d_fine() -> tuple[KnownWeights, ...]:
    hub = "hub:ustc-community/dfine"
    sizes = {"n": "nano", "s": "small", "m": "medium", "l": "large"}
    longer = {
        "s": ("small-obj2coco", 50.7),
        "m": ("medium-obj2coco", 55.1),
        "l": ("large-obj2coco-e25", 57.3),
        "x": ("xlarge-obj2coco", 59.3),
    }
    return (
        *(
            KnownWeights(f"{hub}-{word}-coco", f"d-fine-{size}", by_others=True)
            for size, word in sizes.items()
        ),
        KnownWeights(f"{hub}-xlarge-coco", "d-fine-x"),
        *(
            KnownWeights(f"{hub}-{word}", f"d-fine-{size}", _BOTH, own_ap=ap, by_others=True)
            for size, (word, ap) in longer.items()
        ),
        KnownWeights(
            f"{hub}-xlarge-obj365", "d-fine-x", _OBJECTS, ap_of_preset=False, by_others=True
        ),
    )


def _file(name: str, whose: str) -> str:
    return f"{name} ({whose})"


KNOWN_WEIGHTS: tuple[KnownWeights, ...] = (
    *(
        KnownWeights(f"hub:PekingU/rtdetr_v2_{name}vd", f"rtdetrv2-{name}", by_others=True)
        for name in ("r18", "r34", "r50", "r101")
    ),
    KnownWeights(_file("rtdetrv2_r50vd_m", "releases of lyuwenyu/storage"), "rtdetrv2-r50-m"),
    *_d_fine(),
    *(
        KnownWeights(
            _file(f"deim, size {size}", "README of Intellindust-AI-Lab/DEIM"),
            f"deim-{size}",
            activation="silu",
        )
        for size in "nsmlx"
    ),
    *(
        KnownWeights(
            f"hub:AnnaZhang/lwdetr_{size}_60e_coco",
            f"lw-detr-{size}",
            _BOTH,
            by_others=size != "small",
        )
        for size in ("tiny", "small", "medium", "large", "xlarge")
    ),
    KnownWeights("hub:Roboflow/rf-detr-base", "rf-detr-base", _BOTH),
    *(
        KnownWeights(f"hub:Roboflow/rf-detr-{size}", f"rf-detr-{size}", _BOTH, by_others=True)
        for size in ("nano", "small", "medium", "large")
    ),
    *(
        KnownWeights(_file(name, "package rfdetr"), f"rf-detr-{size}", _BOTH)
        # rf-detr-large.pth without the year is another, older model
        for size, name in (
            ("nano", "rf-detr-nano.pth"),
            ("small", "rf-detr-small.pth"),
            ("medium", "rf-detr-medium.pth"),
            ("large", "rf-detr-large-2026.pth"),
        )
    ),
    KnownWeights(
        "hub:SenseTime/deformable-detr-with-box-refine-two-stage",
        "deformable-r50",
        ap_of_preset=False,
    ),
    KnownWeights("hub:microsoft/conditional-detr-resnet-50", "conditional-r50"),
    KnownWeights("hub:hustvl/yolos-tiny", "yolos-tiny"),
    KnownWeights("hub:hustvl/yolos-small", "yolos-small", ap_of_preset=False),
)


def known_weights(preset: str | None = None) -> list[KnownWeights]:
    """Those that fit a preset, or all.

    Raises ConfigError for a preset that is none.
    """
    if preset is not None:
        load_preset(preset)
    return [each for each in KNOWN_WEIGHTS if preset in (None, each.preset)]
