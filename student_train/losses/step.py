"""The losses of a step, stack by stack, as their pairs become known."""

import torch
from torch import Tensor

from student_train.losses.class_terms import class_term
from student_train.losses.config import LossConfig
from student_train.losses.edge_terms import Distilled, distil, fgl_losses, stacked_logits
from student_train.losses.layout import Layout
from student_train.losses.plan import Stack
from student_train.losses.set_loss import (
    Matched,
    Pairs,
    box_losses,
    class_losses,
    compare,
)


class StepLosses:
    """Collects [terms, S, L] of every stack, coefficients applied."""

    def __init__(self, layout: Layout, config: LossConfig):
        self._layout, self._config = layout, config
        self._classes = {
            each.name: class_term(each.prediction.logits, config) for each in layout.stacks
        }
        self._found: dict[str, list[Tensor]] = {}
        self._distilled: dict[str, Distilled] = {}

    def add(
        self,
        of: Stack,
        pairs: Pairs,
        shared: Pairs | None = None,
        normalisers: Tensor | None = None,
    ) -> None:
        """The losses of one stack. `shared`: other pairs for all but the classes, and what their
        losses are divided by, [supervisions].
        """
        mine, table = self._layout.of[of.name], self._layout.table
        classes = self._classes[of.name]
        boxes = of.prediction.boxes.to(classes.absent.dtype)

        def matched(pairs: Pairs) -> Matched:
            eps = self._config.giou_eps
            return compare(boxes, table.boxes, table.scores, pairs, mine.sets, eps)

        own = matched(pairs)
        losses = [class_losses(classes, own, self._layout.labels(of), pairs, mine.sets)]
        normaliser = mine.sets.normaliser
        if shared is not None and normalisers is not None:
            own, pairs = matched(shared), shared
            normaliser = mine.at_least(normalisers[mine.place].to(normaliser.dtype))
        losses += box_losses(own, mine.sets, normaliser)
        if of.edges is not None:
            logits = stacked_logits(of.edges, boxes)
            goal = table.boxes[pairs.row]
            losses.append(fgl_losses(logits, of.edges, own, goal, pairs, normaliser))
            self._distil(of, logits, own, pairs)
        self._found[of.name] = losses

    def values(self) -> Tensor:
        """All parts, in the order of the layout's names."""
        # layers of denoising queries weigh those with a box as matching ones do (official)
        counts = next(
            (self._distilled[s.name].counts for s in self._layout.stacks if self._counts(s)), None
        )
        found = {}
        for each in self._layout.stacks:
            rows = self._found[each.name]
            if each.edges is not None:
                rows = [*rows, self._distillation(each, counts)]
            by_term = self._layout.of[each.name].coefficients[: len(rows), :, None]
            found[each.name] = torch.stack(rows) * by_term
        return self._layout.in_order(found)

    def _counts(self, of: Stack) -> bool:
        return of.name in self._distilled and not of.known

    def _distil(self, of: Stack, logits: Tensor, matched: Matched, pairs: Pairs) -> None:
        for index, task in enumerate(of.tasks):
            if task.supervision.distil:
                last = of.prediction.logits[-1]
                iou, real, place = matched.iou[index], matched.real[index], pairs.place[index]
                self._distilled[of.name] = distil(logits, last, iou, real, place)

    def _distillation(self, of: Stack, counts: tuple[Tensor, Tensor] | None) -> Tensor:
        """[S, L], zero for sets that say nothing about it."""
        rows = self._found[of.name][0].new_zeros(len(of.tasks), of.shape[0])
        if of.name not in self._distilled:
            return rows
        loss = self._distilled[of.name].loss(counts)
        says = torch.tensor([task.supervision.distil for task in of.tasks], device=rows.device)
        return torch.where(says[:, None], loss * self._layout.share_of_images(of)[:, None], rows)
