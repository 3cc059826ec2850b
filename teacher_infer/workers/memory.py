"""Running out of memory: how frameworks say it, and what can be given back."""

import sys


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the GPU or the machine has no more memory to give.

    Frameworks say it in words as often as by a class of its own (torch.OutOfMemoryError is a
    RuntimeError, ONNX Runtime and cuDNN only have texts), and an adapter may have wrapped it.
    """
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, MemoryError) or type(chain).__name__ == "OutOfMemoryError":
            return True
        text = str(chain).lower()
        if "out of memory" in text or "failed to allocate memory" in text:
            return True
        chain = chain.__cause__
    return False


def release_gpu_memory() -> None:
    """Hand back what torch keeps for later, if torch is in use at all."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
