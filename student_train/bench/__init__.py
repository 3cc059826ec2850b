"""Measurements of a training step on this machine, each with what it is compared with beside it.

`teachers.py`: what teachers cost, in turns with the same step without them, and against the loop
of `losses.loop`. `shares.py`: where a step's time goes. `presets.py`: every preset with Triton and
with the reference. `loader.py`: what the loader delivers beside what the step asks for;
`memory.py`: whether its processes grow.
"""

from student_train.bench.loader import LoaderResult, bench_loader
from student_train.bench.presets import PresetRow, bench_presets
from student_train.bench.shares import ShareResult, bench_shares
from student_train.bench.step import BenchSpec, default_preset, default_steps, provenance
from student_train.bench.teachers import TeacherResult, bench_teachers

__all__ = [
    "BenchSpec",
    "LoaderResult",
    "PresetRow",
    "ShareResult",
    "TeacherResult",
    "bench_loader",
    "bench_presets",
    "bench_shares",
    "bench_teachers",
    "default_preset",
    "default_steps",
    "provenance",
]
