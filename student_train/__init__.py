"""The students, their losses and their trainer.

`models` builds DETR-type detectors, `losses` compares them with ground truth and teachers, `data`
reads images with the boxes of both. `presets` and `config` say what to train, `launch.train` trains
it, `predictor.load_predictor` uses the result. The command line is `student-train`.
"""

from typing import Any

__all__ = ["load_predictor"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    # torch is imported when it is asked for
    if name == "load_predictor":
        from student_train.predictor import load_predictor

        return load_predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
