#!/bin/sh
# transformers 5.23.0: D-FINE with an earlier `eval_idx` grows layers, and its first forward fails.
#
# D-FINE's own code evaluates layer `eval_idx` and drops the ones behind it. DFineConfig documents
# the same setting (default -1, the last layer), but DFineModel adds decoder_layers - eval_idx - 1
# layers to the decoder_layers it has: 3 layers with eval_idx=1 become 4, 6 with eval_idx=2 become 9.
# Heads are made for decoder_layers of them, so a forward raises IndexError, in training too. A
# folder saved with such a setting can therefore not be used by transformers.
#
# Seen with transformers 5.23.0, torch 2.14.1. Needs about 3 GB of downloads and two minutes; fails
# when what is said here is no longer so.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
if [ -n "${PYTHON:-}" ]; then python=$PYTHON; else
    python3 -m venv venv
    python=$work/venv/bin/python
    "$python" -m pip -q install transformers==5.23.0 torch==2.14.1 torchvision==0.29.1
fi
HF_HUB_OFFLINE=1 "$python" -W ignore - <<'EOF'
import torch
import transformers
from transformers import DFineConfig, DFineForObjectDetection

print("transformers", transformers.__version__, "torch", torch.__version__)
pixels = torch.rand(1, 3, 64, 64)
for layers, at, expected in ((3, -1, 3), (3, 2, 3), (3, 1, 4), (6, 2, 9)):
    model = DFineForObjectDetection(DFineConfig(decoder_layers=layers, eval_idx=at, num_queries=20)).eval()
    made = len(model.model.decoder.layers)
    try:
        with torch.no_grad():
            outcome = f"logits {tuple(model(pixels).logits.shape)}"
    except IndexError as error:
        outcome = f"IndexError: {error}"
    print(f"decoder_layers={layers}, eval_idx={at}: {made} layers, {outcome}")
    assert made == expected, "another number of layers now"
    assert outcome.startswith("IndexError") == (expected > layers), "it runs now"
print("as described")
EOF
