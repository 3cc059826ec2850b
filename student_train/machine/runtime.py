"""Where a run computes: device, precision, threads and the other processes, chosen once."""

import contextlib
import random
import zlib
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch

from student_train.errors import ConfigError
from student_train.machine.distributed import World, join_world


@dataclass(frozen=True)
class Runtime:
    """Device, mixed precision and process group of a run, with the reason for the choice."""

    device: torch.device
    amp: bool
    world: World
    reason: str

    @classmethod
    def start(
        cls, device: str = "auto", amp: str = "auto", threads: int | None = None
    ) -> "Runtime":
        """Choose a device and join the other processes.

        Args:
            device: auto, cpu, cuda or cuda:N. With torchrun, `cuda` is this process's own GPU.
            amp: auto (bf16 where a GPU supports it), bf16 or off.

        Raises:
            ConfigError: a GPU was asked for and there is none, or the device does not exist.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        has_gpu = torch.cuda.is_available()
        if device == "auto":
            device = "cuda" if has_gpu else "cpu"
            why = "a GPU is there" if has_gpu else "no GPU is visible to PyTorch"
        else:
            why = "as asked"
        if device.startswith("cuda") and not has_gpu:
            raise ConfigError([f"device={device} was asked for, but PyTorch sees no GPU"])
        world = join_world(device.split(":")[0])
        chosen = torch.device(device)
        if chosen.type == "cuda":
            index = chosen.index if world.size == 1 else world.local_rank
            chosen = torch.device("cuda", index or 0)
            if chosen.index >= torch.cuda.device_count():
                raise ConfigError(
                    [f"device={device}: PyTorch sees {torch.cuda.device_count()} GPUs, from cuda:0"]
                )
            torch.cuda.set_device(chosen)
        use_amp = amp == "bf16" or (
            amp == "auto" and chosen.type == "cuda" and torch.cuda.is_bf16_supported()
        )
        return cls(chosen, use_amp, world, why)

    def autocast(self) -> AbstractContextManager[object]:
        """bf16 autocast where it is on, otherwise nothing."""
        if not self.amp:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def seed_step(self, *parts: int | str) -> None:
        """Seed the generators of PyTorch, NumPy and Python from `parts` and this process's rank.

        The numbers drawn in a step then depend on the run's seed and the step alone: not on what
        was drawn before, on an evaluation in between, or on whether the run was interrupted. That
        is what makes resuming exact.
        """
        text = "/".join(map(str, (*parts, self.world.rank)))
        # two different checksums make 64 bits
        raw = text.encode()
        seed = (zlib.crc32(raw) << 31) ^ zlib.adler32(raw[::-1])
        torch.manual_seed(seed)
        # nothing of ours draws from these two: a backbone or a library may
        np.random.seed(seed % 2**32)
        random.seed(seed)

    def describe(self) -> str:
        """Device, precision and processes in one line."""
        name = (
            torch.cuda.get_device_name(self.device)
            if self.device.type == "cuda"
            else f"CPU, {torch.get_num_threads()} threads"
        )
        precision = "bf16 autocast" if self.amp else "float32"
        processes = f", {self.world.size} processes" if self.world.size > 1 else ""
        return f"{name} ({self.reason}), {precision}{processes}"
