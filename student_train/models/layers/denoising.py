"""Denoising: extra training queries made from noised ground truth, which have to restore it.

DN-DETR (Li et al., CVPR 2022) section 4: groups that each hold every target once, its label
perhaps replaced, its box moved. DINO section 3.3, contrastive: every group holds each target twice,
as a positive, moved by less than its half size, which must find its target again, and a negative,
moved by more, which must say that there is nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from student_train.models.layers.position import inverse_sigmoid
from student_train.models.output import Denoising, Prediction
from student_train.models.targets import Targets


@dataclass
class Noise:
    """The random numbers of one step, of R noised boxes. R = groups x boxes of the batch
    (contrastive: twice as many): the whole list tiled, groups outermost, positives and negatives in
    turn. Students that draw for every slot (RT-DETR) have [B, P] in the place of [R]."""

    flip: Tensor
    """[R], uniform in 0..1: the label is replaced where it is below the share to be replaced"""
    label: Tensor
    """LongTensor [R], the label that replaces it"""
    sign: Tensor
    """[R, 4], 0 or 1: direction in which a coordinate of the box moves"""
    amount: Tensor
    """[R, 4], uniform in 0..1: how far; one more for negatives"""

    def at(self, *index: Tensor) -> Noise:
        """The numbers at some places."""
        return Noise(self.flip[index], self.label[index], self.sign[index], self.amount[index])

    @property
    def shift(self) -> Tensor:
        """[R, 4], uniform in -1..1."""
        return self.amount * self.direction

    @property
    def direction(self) -> Tensor:
        """[R, 4], -1 or 1."""
        return self.sign * 2 - 1

    @staticmethod
    def draw(
        shape: tuple[int, ...], n_classes: int, device: torch.device, dtype: torch.dtype
    ) -> Noise:
        """Fresh numbers from torch's generator of `device`, `shape` in the place of [R]."""
        return Noise(
            flip=torch.rand(shape, device=device, dtype=dtype),
            label=torch.randint(0, n_classes, shape, device=device),
            sign=torch.randint(0, 2, (*shape, 4), device=device),
            amount=torch.rand(*shape, 4, device=device, dtype=dtype),
        )


@dataclass
class NoisyQueries:
    """Denoising queries, P slots an image: groups x copies of a target x (targets of the fullest
    image)."""

    content: Tensor
    """[B, P, C], label embeddings; in slots that no target fills zero (or RT-DETR's own row)"""
    boxes: Tensor
    """[B, P, 4], (cx, cy, w, h) in 0..1; in slots that no target fills 0.5 (RT-DETR: 0)"""
    blocked: Tensor
    """[P + Q, P + Q] bool, True where the row's query must not see the column's"""
    image_index: Tensor
    slot_index: Tensor
    target_index: Tensor
    n_groups: int

    def before(self, content: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Contents [B, P + Q, C] and boxes [B, P + Q, 4] of all queries, from the Q matching
        ones'.
        """
        return torch.cat((self.content, content), 1), torch.cat((self.boxes, boxes), 1)

    def split(self, layers: list[Prediction]) -> tuple[list[Prediction], Denoising]:
        """The decoder's predictions at all queries: those of the matching ones, and what the loss
        needs of the denoising ones.
        """
        n_slots = self.boxes.shape[1]
        denoising = Denoising(
            [each.queries(0, n_slots) for each in layers],
            self.image_index,
            self.slot_index,
            self.target_index,
            self.n_groups,
            n_slots,
        )
        return [each.queries(n_slots, None) for each in layers], denoising


def group_count(number: int, most: int) -> int:
    """How many groups of denoising queries an image gets; `most` is the fullest image's targets.

    From 50 on, as many as share about `number` positives and as many negatives; below 50 the
    official code takes twice the number itself for the count of groups, however full the images.
    """
    if most == 0:
        return 1
    doubled = 2 * number
    return max(doubled // (2 * most) if doubled >= 100 else doubled, 1)


def attention_mask(n_noisy: int, n_matching: int, group: int, device: torch.device) -> Tensor:
    """Which queries must not see which, [P + Q, P + Q] bool, denoising queries first, `group` of
    them a group.

    Matching queries do not see denoising ones, which would show them the ground truth; denoising
    queries see their own group and all matching ones.
    """
    place = torch.arange(n_noisy + n_matching, device=device)
    noisy, group_of = place < n_noisy, place // max(group, 1)
    return noisy[None, :] & (~noisy[:, None] | (group_of[:, None] != group_of[None, :]))


class DenoisingQueries(nn.Module, ABC):
    """Makes denoising queries; owns the embedding of labels (one row more than classes, as in the
    official code). Subclasses say how boxes move.
    """

    copies = 1
    """of every target in a group: 1 positive, and perhaps a negative"""
    eps = 1e-3
    """bounds the logits of references, see `inverse_sigmoid`"""
    every_slot = False
    """whether slots that no target fills draw noise too, and hold the embedding of the label beyond
    the classes at a box of size 0 (RT-DETR), or zeros at the centre"""

    def __init__(self, n_classes: int, width: int, label_noise: float, box_noise: float) -> None:
        """`label_noise` is the share of labels that are replaced."""
        super().__init__()
        self.n_classes = n_classes
        self.label_noise = label_noise
        self.box_noise = box_noise
        self.label_embedding = nn.Embedding(n_classes + 1, width)

    @abstractmethod
    def group_count(self, most: int) -> int:
        """Groups of a batch whose fullest image has `most` targets."""

    def embed(self, labels: Tensor) -> Tensor:
        """Contents [R, C] of queries with these labels [R]."""
        return self.label_embedding(labels)

    @abstractmethod
    def noisy_boxes(self, boxes: Tensor, negative: Tensor, noise: Noise) -> Tensor:
        """Boxes [R, 4] (cx, cy, w, h) in 0..1, moved; `negative` [R] marks those that go far."""

    def forward(
        self,
        targets: list[Targets],
        n_matching: int,
        dtype: torch.dtype,
        noise: Noise | None = None,
    ) -> NoisyQueries | None:
        """Queries for a batch, or None if no image has a target. Boxes come out in `dtype`."""
        counts = [len(t) for t in targets]
        most, total = max(counts, default=0), sum(counts)
        if total == 0:
            return None
        device = self.label_embedding.weight.device
        groups, copies = self.group_count(most), self.copies
        labels = torch.cat([t.labels for t in targets]).to(device)
        boxes = torch.cat([t.boxes for t in targets]).to(device, dtype)
        image = torch.cat([torch.full((n,), i) for i, n in enumerate(counts)]).to(device)
        index = torch.cat([torch.arange(n) for n in counts]).to(device)
        rows, n_slots = groups * copies * total, groups * copies * most
        if noise is None:
            shape = (len(targets), n_slots) if self.every_slot else (rows,)
            noise = Noise.draw(shape, self.n_classes, device, dtype)
        row = torch.arange(rows, device=device)
        repetition, box = row // total, row % total
        negative = repetition % copies > 0
        slot = repetition * most + index[box]
        if self.every_slot:
            noise = noise.at(image[box], slot)

        noisy_labels = self._noisy_labels(labels[box], noise)
        noisy_boxes = boxes[box]
        if self.box_noise > 0:
            noisy_boxes = self.noisy_boxes(noisy_boxes, negative, noise)
        embedded = self.embed(noisy_labels)
        content, references = self._empty_slots(len(targets), n_slots, embedded, boxes)
        content = content.index_put((image[box], slot), embedded)
        # through the logit and back, so that boxes at the border are clamped as references are
        references[image[box], slot] = inverse_sigmoid(noisy_boxes, self.eps).sigmoid()
        # by their place: indexing with a mask would make the host wait for the device
        positive = row.view(groups, copies, total)[:, 0].reshape(-1)
        return NoisyQueries(
            content,
            references,
            attention_mask(n_slots, n_matching, copies * most, device),
            image_index=image[box][positive],
            slot_index=slot[positive],
            target_index=index[box][positive],
            n_groups=groups,
        )

    def _empty_slots(
        self, images: int, slots: int, embedded: Tensor, boxes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Contents [B, P, C] and boxes [B, P, 4] before any slot is filled with such as these."""
        if self.every_slot:
            # the official row is one of padding: it gets no gradient
            row = self.label_embedding.weight[self.n_classes].detach()
            box = inverse_sigmoid(boxes.new_zeros(images, slots, 4), self.eps).sigmoid()
            return row.to(embedded.dtype).expand(images, slots, -1), box
        content = embedded.new_zeros(images, slots, embedded.shape[-1])
        return content, boxes.new_full((images, slots, 4), 0.5)

    def _noisy_labels(self, labels: Tensor, noise: Noise) -> Tensor:
        if self.label_noise <= 0:
            return labels
        return torch.where(noise.flip < self.label_noise, noise.label, labels)


class ContrastiveDenoising(DenoisingQueries):
    """DINO's: positives and negatives, whose corners move by a share of the half size: below one
    for positives, from one to two for negatives.
    """

    copies = 2

    def __init__(
        self, n_classes: int, dim: int, number: int, label_noise: float, box_noise: float
    ) -> None:
        """`number` is of queries, see `group_count`; `label_noise` twice the share of labels that
        are replaced.
        """
        super().__init__(n_classes, dim, label_noise * 0.5, box_noise)
        self.number = number

    def group_count(self, most: int) -> int:
        """By the number of queries."""
        return group_count(self.number, most)

    def noisy_boxes(self, boxes: Tensor, negative: Tensor, noise: Noise) -> Tensor:
        """Corners moved."""
        centre, half = boxes[:, :2], boxes[:, 2:] / 2
        corners = torch.cat((centre - half, centre + half), 1)
        amount = noise.amount + negative[:, None]
        moved = amount * noise.direction * torch.cat((half, half), 1) * self.box_noise
        corners = (corners + moved).clamp(0, 1)
        low, high = corners[:, :2], corners[:, 2:]
        return torch.cat(((low + high) / 2, high - low), 1)


class SlotDenoising(ContrastiveDenoising):
    """RT-DETR's: as DINO's, but for the slots that no target fills, the bound of
    logits, and groups as many as share `number` positives.
    """

    eps = 1e-5
    every_slot = True

    def __init__(
        self, n_classes: int, dim: int, number: int, label_noise: float, box_noise: float
    ) -> None:
        super().__init__(n_classes, dim, number, label_noise, box_noise)
        with torch.no_grad():
            self.label_embedding.weight[n_classes] = 0

    def group_count(self, most: int) -> int:
        """By the number of positives; one at least."""
        return max(1, self.number // max(1, most))


class MirroredDenoising(SlotDenoising):
    """D-FINE's: where a box is moved so far that its corners change sides, it is the box between
    them, and not one of no extent.
    """

    def noisy_boxes(self, boxes: Tensor, negative: Tensor, noise: Noise) -> Tensor:
        """Corners moved, and sorted."""
        return super().noisy_boxes(boxes, negative, noise).abs()


class PlainDenoising(DenoisingQueries):
    """DN-DETR's: a fixed number of groups without negatives. The last channel of a content tells
    denoising queries (1) from matching ones (0), so the embedding of labels is one narrower.
    """

    def __init__(
        self, n_classes: int, dim: int, groups: int, label_noise: float, box_noise: float
    ) -> None:
        super().__init__(n_classes, dim - 1, label_noise, box_noise)
        self.groups = groups

    def group_count(self, most: int) -> int:
        """Always the same."""
        return self.groups

    def embed(self, labels: Tensor) -> Tensor:
        """Labels marked as denoising."""
        return F.pad(self.label_embedding(labels), (0, 1), value=1.0)

    def unknown(self) -> Tensor:
        """Content [C] of a matching query: the row beyond the classes, marked as matching."""
        return F.pad(self.label_embedding.weight[self.n_classes], (0, 1), value=0.0)

    def noisy_boxes(self, boxes: Tensor, negative: Tensor, noise: Noise) -> Tensor:
        """Centres moved by at most `box_noise` half sizes, sizes changed by at most `box_noise` of
        themselves.
        """
        reach = torch.cat((boxes[:, 2:] / 2, boxes[:, 2:]), 1) * self.box_noise
        return (boxes + noise.shift * reach).clamp(0, 1)
