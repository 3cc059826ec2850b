#!/bin/sh
# onnxruntime 1.31.0: convert_float_to_float16 writes files that onnxruntime refuses where one value
# feeds two operators of its block list (since microsoft/onnxruntime#27469, against other collisions).
#
# onnxruntime.transformers.float16 leaves Min, Max, TopK, NonMaxSuppression, RoiAlign and others in
# float32 and puts a Cast before each of their inputs. The Cast is named after the value, not after
# who reads it: a value that two such operators read gets two Casts of one name with one output, and
# the model is none: "two nodes with same node name". torchvision's generalized_box_iou, corners of which go
# into a minimum and a maximum, exported by torch.onnx.export and nothing else, is enough. With Min and
# Max taken off the list (op_block_list) the same file loads.
#
# Seen with onnxruntime 1.31.0, onnx 1.23.0, torch 2.14.1, torchvision 0.29.1. Needs about 3 GB of
# downloads and a minute; fails when what is said here is no longer so.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
if [ -n "${PYTHON:-}" ]; then python=$PYTHON; else
    python3 -m venv venv
    python=$work/venv/bin/python
    "$python" -m pip -q install onnxruntime==1.31.0 onnx==1.23.0 onnxscript==0.7.2 torch==2.14.1 \
        torchvision==0.29.1 sympy==1.14.0
fi
"$python" -W ignore - <<'EOF'
import onnx
import onnxruntime
import torch
import torchvision
from onnxruntime.transformers import float16


class Overlap(torch.nn.Module):
    def forward(self, first, second):
        return torchvision.ops.generalized_box_iou(first, second)


print("onnxruntime", onnxruntime.__version__, "torch", torch.__version__)
boxes = torch.tensor([[0.1, 0.1, 0.5, 0.6], [0.2, 0.3, 0.9, 0.8]])
torch.onnx.export(Overlap(), (boxes, boxes), "iou.onnx", dynamo=True, verbose=False)
onnxruntime.InferenceSession("iou.onnx")
print("float32: loads")

onnx.save(float16.convert_float_to_float16(onnx.load("iou.onnx"), keep_io_types=True), "half.onnx")
try:
    onnxruntime.InferenceSession("half.onnx")
except Exception as error:
    print("float16:", error)
    assert "two nodes with same node name" in str(error)
    assert "_cast_to_fp32_node" in str(error)
else:
    raise SystemExit("it loads now")

fewer = [name for name in float16.DEFAULT_OP_BLOCK_LIST if name not in ("Min", "Max")]
made = float16.convert_float_to_float16(
    onnx.load("iou.onnx"), keep_io_types=True, op_block_list=fewer
)
onnx.save(made, "half.onnx")
session = onnxruntime.InferenceSession("half.onnx")
names = [one.name for one in session.get_inputs()]
(found,) = session.run(None, dict.fromkeys(names, boxes.numpy()))
print("without Min and Max on the list:", found.round(2).tolist())
assert abs(found.diagonal() - 1).max() < 0.01
print("as described")
EOF
