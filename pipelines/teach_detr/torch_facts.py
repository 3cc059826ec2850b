"""What torch sees of this machine, asked in a process of its own: devices, threads, attention.

`python -m teach_detr.torch_facts` prints it as JSON. Importing torch takes seconds and a gigabyte,
and a torch that does not fit the driver may end its process; the one that asks survives both.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

# an import of torch from a cold network disk takes a minute or more
_PATIENCE_S = 300


@dataclass(frozen=True)
class TorchFacts:
    """devices: name, memory_gib, capability; kernel: the attention's device, backend, reason;
    `failure`: why torch could not say, in which case the rest is empty.
    """

    threads: int | None = None
    devices: list[dict[str, Any]] = field(default_factory=list)
    kernel: list[dict[str, str]] = field(default_factory=list)
    failure: str = ""


def ask_torch() -> TorchFacts:
    """Start the process and read its answer; one that ends badly is told, not raised."""
    # what this process can import, that one can
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "ignore", "-m", "teach_detr.torch_facts"]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_PATIENCE_S
        )
    except subprocess.TimeoutExpired:
        return TorchFacts(failure=f"torch did not answer within {_PATIENCE_S} s")
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        return TorchFacts(failure=f"import torch ended with {done.returncode}: {said}")
    return TorchFacts(**json.loads(done.stdout.splitlines()[-1]))


def look() -> TorchFacts:
    """The facts, found in this process."""
    import torch

    from detr_kernels import choose_backend

    devices: list[dict[str, Any]] = []
    for i in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(i)
        devices.append(
            {
                "name": found.name,
                "memory_gib": round(found.total_memory / 2**30, 1),
                "capability": f"{found.major}.{found.minor}",
            }
        )
    kernel = []
    for device in ["cpu", *(f"cuda:{i}" for i in range(len(devices)))]:
        backend, reason = choose_backend(device)
        kernel.append({"device": device, "backend": backend, "reason": reason})
    return TorchFacts(torch.get_num_threads(), devices, kernel)


if __name__ == "__main__":
    print(json.dumps(asdict(look())))
