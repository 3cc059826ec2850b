"""The command `bench`."""

from typing import Annotated

import typer
from rich.console import Console

from box_store.errors import UsageError
from teacher_infer.bench import bench
from teacher_infer.choose_pool import choose_pool
from teacher_infer.cli_options import (
    Annotations,
    Data,
    Images,
    Splits,
    Teachers,
    TeachersFile,
    read_specs,
)
from teacher_infer.dataset import load_dataset
from teacher_infer.progress import PlainReporter
from teacher_infer.terminal import AsJson, print_json, say


def bench_service(
    data: Data = None,
    split: Splits = None,
    images: Images = None,
    annotations: Annotations = None,
    teacher: Teachers = None,
    teachers: TeachersFile = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each side runs")] = 3,
    local: Annotated[bool, typer.Option("--local", help="One process without Ray")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare the service with a bare loop that decodes and predicts: images a second, ratio.

    Both label the whole data set in turn, with as many threads; nothing is kept.

    Example: teacher-infer bench --data coco --split val2017
    --teacher yolox=onnx:yolox_nano.onnx,format=yolox
    """
    specs = read_specs(teacher, teachers)
    if len(specs) != 1 or specs[0].workers != 1:
        raise UsageError("bench compares one teacher with one worker with a loop: give just that")
    dataset = load_dataset(data, split or [], images, annotations)
    with PlainReporter(Console(stderr=True)) as reporter:
        result = bench(
            dataset, specs[0], lambda: choose_pool(specs, local, local, None)[0], reporter, rounds
        )
    if as_json:
        print_json(result.as_dict())
    else:
        say(result.text())
