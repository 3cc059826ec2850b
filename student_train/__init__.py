"""The students, their losses and their trainer.

`models` builds DETR-type detectors, `losses` compares them with ground truth and teachers, `data`
reads images with the boxes of both. `presets` and `config` say what to train, `launch.train` trains
it, `predictor.load_predictor` uses the result. The command line is `student-train`.
"""
