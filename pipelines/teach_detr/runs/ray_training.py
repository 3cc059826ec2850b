r"""Start the trainer's processes on a Ray cluster with Ray Train.

    python -m teach_detr.runs.ray_training --address auto --processes 8 --gpus 1 \
        --storage DIR -- train

What follows `--` are the arguments of `student-train`. The trainer knows nothing of Ray: it finds
the process group that Ray Train has formed, as it finds torchrun's. Data, store and run folder must
have the same paths on every node. A process that dies, with its node or alone, takes the others
with it; Ray starts all of them again, and `--resume` goes on from the last saved state.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from box_store.errors import TeachDetrError, UsageError
from student_train.errors import LoaderDied, PeerLost


def train_on_ray(
    arguments: list[str],
    *,
    address: str,
    processes: int,
    cpus: float,
    gpus: float,
    max_failures: int,
    storage: Path,
) -> None:
    """Run `student-train ARGUMENTS` in `processes` processes of a Ray cluster, and wait.

    `address` is HOST:PORT, auto, or local for a cluster of this machine alone, with as many CPUs as
    the processes ask for. `storage` is a folder that all nodes see, for Ray Train's own records.

    Raises:
        UsageError: Ray Train is not installed.
        RayUnavailable: the cluster cannot be reached.
        TeachDetrError: the trainer ended with an error that starting again would not change, or
            failed more often than `max_failures` allow.
    """
    try:
        from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchConfig, TorchTrainer

        from teacher_infer.workers.ray_cluster import RayCluster
    except ImportError as error:
        raise UsageError(
            f"launcher ray needs Ray Train ({error}): pip install 'teach-detr[ray]' pandas"
        ) from error
    own = None if address == "local" else address
    cluster = RayCluster(own, num_cpus=processes * max(1, round(cpus)), show_workers=True)
    mistake = storage / "mistake.txt"
    mistake.unlink(missing_ok=True)
    given = {
        "arguments": arguments,
        "folder": str(Path.cwd()),
        "path": sys.path,
        "mistake": str(mistake),
    }
    trainer = TorchTrainer(
        _process,
        train_loop_config=given,
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=processes,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": cpus} | ({"GPU": gpus} if gpus else {}),
        ),
        run_config=RunConfig(
            name="train",
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=max_failures),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        if not mistake.exists():
            raise TeachDetrError(
                f"the trainer failed more than {max_failures} times: {error}"
            ) from error
    finally:
        cluster.leave()
    if mistake.exists():
        raise TeachDetrError(mistake.read_text(encoding="utf-8"))


def _process(given: dict[str, Any]) -> None:
    """One training process."""
    mistake = Path(given["mistake"])
    if mistake.exists():
        # started again after an error that would only come back
        return
    os.chdir(given["folder"])
    sys.path[:] = list(dict.fromkeys([*sys.path, *given["path"]]))
    from student_train.cli import app

    try:
        app(args=given["arguments"], standalone_mode=False)
    except TeachDetrError as error:
        if not isinstance(error, LoaderDied | PeerLost):
            mistake.write_text(str(error), encoding="utf-8")
        # the other processes wait in a collective: failing is what ends them
        raise RuntimeError(str(error)) from error


def main() -> None:
    """Read the arguments and train; a mistake of the user ends in one sentence."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--address", default="local")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--cpus", type=float, default=1)
    parser.add_argument("--gpus", type=float, default=0)
    parser.add_argument("--max-failures", type=int, default=3)
    parser.add_argument("--storage", type=Path, required=True)
    parser.add_argument("arguments", nargs="+")
    given = vars(parser.parse_args())
    try:
        train_on_ray(**given)
    except TeachDetrError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
