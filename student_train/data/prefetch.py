"""Batches that are on the device before the step asks for them."""

from collections.abc import Iterator

import torch

from student_train.data.batch import Batch


def prefetch(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The same batches on a device. On a GPU the next one is copied while this one is computed.

    The copy runs on a stream of its own, from pinned memory, so neither the host nor the step waits
    for it. Images stay bytes until `Batch.to` makes numbers of them.
    """
    if device.type != "cuda":
        for batch in batches:
            yield batch.copied(device)
        return
    stream = torch.cuda.Stream(device)
    coming = _send(next(batches, None), device, stream)
    while coming is not None:
        current = torch.cuda.current_stream(device)
        current.wait_stream(stream)
        for tensor in coming.tensors:
            # made on the other stream: its memory must not be reused before this one is done
            tensor.record_stream(current)
        ready = coming
        coming = _send(next(batches, None), device, stream)
        yield ready


def _send(batch: Batch | None, device: torch.device, stream: torch.cuda.Stream) -> Batch | None:
    if batch is None:
        return None
    with torch.cuda.stream(stream):
        return batch.copied(device)
