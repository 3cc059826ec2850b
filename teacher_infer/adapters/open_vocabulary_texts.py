"""What open-vocabulary models are asked for: texts of classes, texts of none, and how they fit into
what a model reads at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from box_store.errors import UsageError
from teacher_infer.adapters.protocol import AdapterSpec, texts_of

NAME = "{}"
NEGATIVE = -1


@dataclass(frozen=True)
class Asked:
    """Texts that a model is asked for, and of which class each is (NEGATIVE: of none)."""

    texts: tuple[str, ...]
    owners: tuple[int, ...]
    names: tuple[str, ...]
    """under which key each was given, for messages"""

    def classes(self, best: Tensor) -> Tensor:
        """Indices of texts -> class indices of the same shape."""
        return torch.tensor(self.owners, device=best.device)[best]

    @property
    def together(self) -> list[list[int]]:
        """Indices of the texts of each class, and last those of no class."""
        found: dict[int, list[int]] = {}
        for index, owner in enumerate(self.owners):
            found.setdefault(owner, []).append(index)
        return [*found.values(), *([] if NEGATIVE in found else [[]])]


@dataclass(frozen=True)
class TextPass:
    """One text for Grounding DINO: its tokens, and where the phrases are in it.

    token_ids: with the tokens that begin, separate and end. spans: phrase index -> first position
    and the one after the last.
    """

    token_ids: tuple[int, ...]
    spans: dict[int, tuple[int, int]]


def pack(
    phrases: Sequence[Sequence[int]],
    *,
    begin: int,
    separator: int,
    end: int,
    limit: int,
    groups: Sequence[Sequence[int]] | None = None,
    everywhere: Sequence[int] = (),
) -> list[TextPass]:
    """Put phrases (token ids) into as few texts of at most `limit` tokens, in order.

    groups: indices of phrases that stay together, each by itself by default. everywhere: those
    that are in every text. A group with these must not be longer than `limit` - 2, a token more
    counted for each phrase.
    """

    def length(members: Sequence[int]) -> int:
        return sum(len(phrases[index]) + 1 for index in members)

    room = limit - 2 - length(everywhere)
    parts: list[list[int]] = []
    for group in [[index] for index in range(len(phrases))] if groups is None else groups:
        if not parts or length(parts[-1]) + length(group) > room:
            parts.append([])
        parts[-1] += group
    passes = []
    for part in parts:
        tokens, spans = [begin], dict[int, tuple[int, int]]()
        for index in (*part, *everywhere):
            spans[index] = len(tokens), len(tokens) + len(phrases[index])
            tokens += [*phrases[index], separator]
        passes.append(TextPass((*tokens, end), spans))
    return passes


def asked_of(spec: AdapterSpec, template: str) -> Asked:
    """What is asked for each class: its prompts, or its name in the template; and negatives.

    Raises:
        UsageError: a template without a place for the name, or a text that is asked for twice.
    """
    template = spec.option("template") or template
    if NAME not in template:
        raise UsageError(f"template={template}: expected {NAME} where the class name goes")
    rows = [
        (text, owner, f"prompts.{name}")
        for owner, (name, words) in enumerate(spec.prompts.items())
        for text in (texts_of(words) if words else (template.replace(NAME, name),))
    ]
    rows += [(text, NEGATIVE, "not") for text in spec.negatives]
    given: dict[str, str] = {}
    for text, _, name in rows:
        if text in given:
            raise UsageError(
                f"{spec.model} is asked for {text!r} twice, by {given[text]} and {name}: which of "
                "them its boxes are of, nobody could say"
            )
        given[text] = name
    texts, owners, names = zip(*rows, strict=True)
    return Asked(texts, owners, names)


def check_length(name: str, words: str, n_tokens: int, limit: int) -> None:
    said = f"the prompt of {name.removeprefix('prompts.')} ({words!r})"
    if n_tokens > limit:
        raise UsageError(
            f"{said} has {n_tokens} tokens, the model reads {limit}: "
            f"give shorter words with {name}=TEXT"
        )
    if n_tokens == 0:
        raise UsageError(
            f"{said} holds nothing that the model can read: give other words with {name}=TEXT"
        )


def check_room(asked: Asked, phrases: Sequence[Sequence[int]], limit: int) -> None:
    """Every class must fit into one text with all negatives."""
    *groups, negatives = asked.together
    for group in groups:
        n_tokens = sum(len(phrases[index]) + 1 for index in (*group, *negatives))
        if n_tokens > limit:
            beside = f" with the {len(negatives)} of `not`" if negatives else ""
            raise UsageError(
                f"the {len(group)} texts of {asked.names[group[0]]}{beside} have {n_tokens} "
                f"tokens, the model reads {limit} at once: give fewer or shorter ones"
            )
