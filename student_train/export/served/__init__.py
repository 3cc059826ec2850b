"""Programs that run one exported file in one runtime, each in a process of its own, for whoever
compares them. They import nothing of this package: what a user's program has is what they have.

A line of JSON on stdin is a batch, `{"folder": ..., "inputs": [{"name", "dtype", "shape"}]}`,
whose tensors lie in the folder as raw bytes, `0.in`, `1.in`, ...; the answer is a line
`{"outputs": [...], "seconds", "cpu", "peak_mib"}`, tensors in `0.out`,
`1.out`, ...; or `{"error": ...}`. The first line of all says `{"ready": version}`.
"""
