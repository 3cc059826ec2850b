"""One step of the trainer: exact however it is cut up, without hidden waits, compiled or not."""

import io
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from student_train.bench.waits import Waits
from student_train.config import resolve
from student_train.data import prefetch
from student_train.errors import NonFiniteLoss
from student_train.machine import compiling
from student_train.models.pixels import IMAGENET
from student_train.presets import load_preset
from student_train.runs.states import StateFolder
from student_train.settings.origin import ARGUMENT
from student_train.settings.overrides import Layer
from student_train.training import engine
from student_train.training.broken import unusable
from student_train.training.engine import Trainer
from student_train.training.launch import train

# images of one size and no random numbers: a batch is the same however it is cut up
EXACT = {
    "model.n_queries": "8",
    "model.top_k": "8",
    "model.dn_number": "0",
    "model.norm": "frozen",
    "augment.flip": "0",
    "augment.crop": "0",
    "augment.short_sides": "64",
    "eval_every": "0",
    "batch_size": "4",
    "steps": "1",
    "threads": "1",
    "data.workers": "0",
    "data.val_split": "none",
}


def run(data: Path, out: Path, values: dict[str, Any]) -> None:
    settings = EXACT | {"data.root": str(data)} | {k: str(v) for k, v in values.items()}
    resolved = resolve(load_preset("dino-micro"), arguments=[Layer(ARGUMENT, settings)])
    train(resolved, out, Console(file=io.StringIO()), command=["test"])


@pytest.fixture
def gradients(toy: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The gradients of the first step, before clipping, by parameter."""

    def measure(**values: Any) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        original = Trainer._step

        def _step(self: Trainer, *args: Any) -> Any:
            def clip(*_: Any) -> torch.Tensor:
                for name, parameter in self.model.named_parameters():
                    if parameter.grad is not None:
                        found[name] = parameter.grad.clone()
                return torch.zeros(())

            monkeypatch.setattr(engine, "clip_gradients", clip)
            return original(self, *args)

        with monkeypatch.context() as patched:
            patched.setattr(Trainer, "_step", _step)
            values = {key.replace("__", "."): value for key, value in values.items()}
            out = tmp_path / str(len(list(tmp_path.iterdir())))
            run(toy, out, {"teachers.store": store} | values)
        return found

    return measure


def assert_close(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    largest = max(float(value.abs().max()) for value in left.values())
    assert largest > 0
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], rtol=1e-4, atol=1e-6 * largest, msg=name)


def test_parts_of_a_batch_have_the_gradient_of_the_whole(gradients: Any) -> None:
    # the teacher `late` saw half of the images: its boxes are not spread evenly over the parts
    whole = gradients(optim__accumulate=1)
    assert_close(gradients(optim__accumulate=2), whole)
    assert_close(gradients(optim__accumulate=4), whole)


def test_checkpointing_changes_no_gradient(gradients: Any) -> None:
    assert_close(gradients(model__checkpointing="true"), gradients())


class SizesFromData(TorchDispatchMode):
    """Counts operations whose result has a size that only the device knows."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            each is not None and each.dtype == torch.bool for each in args[1]
        )
        if by_mask or name in ("nonzero", "masked_select", "_unique2", "_local_scalar_dense"):
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def made(data: Path, store: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A trainer that is about to make its first step, and the batches of it."""
    caught: dict[str, Any] = {}

    def keep(self: Trainer, batches: Any) -> Any:
        caught["step"] = (self, batches)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", keep)
        with pytest.raises(KeyboardInterrupt):
            run(data, out, {"teachers.store": store, "model.dn_number": 100})
    yield caught["step"]


def test_a_step_waits_for_the_device_once(
    toy: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with made(toy, store, tmp_path / "run", monkeypatch) as (trainer, batches):
        # on a GPU the optimiser is one fused kernel; here it reads its counters on the host
        monkeypatch.setattr(trainer.optimizer, "step", lambda: None)
        # the matching's copy is awaited by a thread of its own, which is not counted
        with Waits() as waits, SizesFromData() as sizes:
            trainer._step(batches)
    assert waits.found == {"tolist": 1}
    assert not sizes.found


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.filterwarnings("default")
def test_a_step_waits_for_a_gpu_once(
    toy: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with made(toy, store, tmp_path / "run", monkeypatch) as (trainer, batches):
        trainer._step(batches)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with pytest.warns(UserWarning, match="synchronizing") as caught:
                trainer._step(batches)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert len([each for each in caught if "synchronizing" in str(each.message)]) == 1


@pytest.mark.slow
# PyTorch's own tracer looks at gradients that are not there
@pytest.mark.filterwarnings("default:The .grad attribute")
@pytest.mark.parametrize("what", ["backbone", "model"])
def test_compiled_parts_have_the_same_gradients(
    gradients: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    plain = gradients()
    compiled: list[str] = []
    original = compiling.compile_parts

    def compile_parts(model: nn.Module, what: str) -> Any:
        compiled.extend(original(model, what, backend="aot_eager"))

    monkeypatch.setattr(engine, "compile_parts", compile_parts)
    assert_close(gradients(compile=what), plain)
    transformer = ["neck", "encoder", "decoder"] if what == "model" else []
    assert compiled == ["backbone", *transformer]


def test_a_poisoned_parameter_ends_in_a_sentence_and_a_checkpoint(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Trainer._step

    def _step(self: Trainer, *args: Any) -> Any:
        if self.position.step == 1:
            with torch.no_grad():
                # finite, so that the state can be kept, and beyond float32 one layer later
                next(p for n, p in self.model.named_parameters() if "classes" in n).fill_(3e38)
        return original(self, *args)

    monkeypatch.setattr(Trainer, "_step", _step)
    sentence = r"diverged at step 2: .*NaN or infinity in .* for \d+\.png \(id \d+\)\. .*step-0*1-"
    with pytest.raises(NonFiniteLoss, match=sentence) as caught:
        run(toy, tmp_path / "run", {"steps": 3})
    assert caught.value.exit_code == 1
    state, _ = StateFolder(tmp_path / "run/checkpoints").load()
    assert state["position"]["step"] == 1


def test_unusable_losses_reach_every_parameter(
    toy: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # other processes wait for these gradients
    with made(toy, store, tmp_path / "run", monkeypatch) as (trainer, batches):
        batch = next(prefetch(iter(batches), torch.device("cpu"))).to("cpu", IMAGENET)
        trainer.model.train()
        output = trainer.model(batch.images, batch.mask, batch.truth)
        trainer.model.zero_grad()
        unusable(output).total.backward()
        missing = [
            name
            for name, parameter in trainer.model.named_parameters()
            if parameter.requires_grad and parameter.grad is None
        ]
        assert not missing
