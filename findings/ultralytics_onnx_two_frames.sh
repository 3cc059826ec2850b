#!/bin/sh
# Ultralytics 8.4.190: two ONNX exports with one output of one name and one shape, in two frames.
#
# YOLO(...).export(format="onnx", nms=True) and RTDETR(...).export(format="onnx") both have the single
# output `output0` [1, 300, 6], and metadata with the same task and `end2end: False`. The rows of the
# first are x1, y1, x2, y2 in pixels of the input, those of the second centre x, centre y, width,
# height in fractions of the image. Of the metadata only `head` (Detect, RTDETRDecoder) tells them
# apart. A reader that goes by shape takes one for the other without an error.
#
# Seen with ultralytics 8.4.190, torch 2.14.1, onnxruntime 1.31.0: largest coordinate 96.0 of the YOLO
# at imgsz=96, below 1.5 of the RT-DETR. Needs about 3 GB of downloads and two minutes; fails when what
# is said here is no longer so.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
if [ -n "${PYTHON:-}" ]; then python=$PYTHON; else
    python3 -m venv venv
    python=$work/venv/bin/python
    "$python" -m pip -q install ultralytics==8.4.190 onnx==1.23.0 onnxruntime==1.31.0 onnxscript==0.7.2
fi
YOLO_OFFLINE=True YOLO_CONFIG_DIR=$work "$python" - <<'EOF'
import numpy as np
import onnxruntime
import torch
from ultralytics import RTDETR, YOLO, __version__

print("ultralytics", __version__)
found = {}
for name, kind, options in (("yolo11n", YOLO, {"nms": True, "conf": 0.0}), ("rtdetr-l", RTDETR, {})):
    torch.manual_seed(0)
    model = kind(f"{name}.yaml")
    path = model.export(format="onnx", imgsz=96, simplify=False, verbose=False, **options)
    session = onnxruntime.InferenceSession(path)
    about = session.get_modelmeta().custom_metadata_map
    (output,) = session.get_outputs()
    pixels = np.random.default_rng(0).random((1, 3, 96, 96), np.float32)
    rows = session.run(None, {"images": pixels})[0][0]
    found[name] = (output.name, output.shape, about["task"], about["end2end"])
    largest = float(rows[:, :4].max())
    print(name, *found[name], about["head"], f"largest coordinate {largest:.3f}")
    assert (largest > 2) == (kind is YOLO), "the frames are alike now"
assert found["yolo11n"] == found["rtdetr-l"], "the two can be told apart now"
print("as described")
EOF
