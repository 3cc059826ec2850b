"""Models of transformers that are told in words what to look for: Grounding DINO, OWL-ViT, OWLv2.

The words are the data set's class names, each in a template, or what prompts say instead. A box
gets the one class whose words it answers best, as transformers' own post-processing has it; one
that answers a negative prompt best is none.

Grounding DINO (arXiv 2303.05499) reads all classes as one text, `tv. remote control.`, and scores
each box against each token. Here a phrase is its run of tokens, known from having put them there,
and its score the highest of these; the library decodes tokens back to text instead, which cannot
tell apart classes that share words. The text has room for few tokens (256), so many classes take
several texts, each a pass over the image. The phrases of a class stay together, so that no pass
finds the same thing again; negative ones are in every text, so that they win in each.

OWL-ViT and OWLv2 (arXiv 2205.06230, 2306.09683) score a box against an embedding of each prompt.
Embeddings don't depend on the image: they are computed once.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from box_store.errors import UsageError
from teacher_infer.adapters.loading import quiet
from teacher_infer.adapters.open_vocabulary_texts import (
    NAME,
    NEGATIVE,
    Asked,
    asked_of,
    check_length,
    check_room,
    pack,
)
from teacher_infer.adapters.protocol import AdapterError, AdapterSpec, Detections

# of OWL, as its authors and transformers' documentation ask
_OWL_TEMPLATE = "a photo of a {}"
# prompts that go through OWL's text model together
_TEXT_BATCH = 64


def is_open(config: Any) -> bool:
    """Whether a configuration is that of a model which is asked in words.

    Raises:
        AdapterError: it is, but of a kind that is not known here.
    """
    if config.model_type == "omdet-turbo":
        raise AdapterError(
            f"models of the kind {config.model_type} are not supported: the open-vocabulary models "
            f"that can be teachers are {', '.join(_FINDERS)}"
        )
    return config.model_type in _FINDERS


def finder(model: Any, processor: Any, spec: AdapterSpec) -> "GroundingFinder | OwlFinder":
    """What reads boxes off such a model (in eval mode, on its device) for the spec's classes.

    Raises:
        UsageError: no classes, or words or options that the model cannot take.
    """
    if not spec.prompts:
        raise UsageError(
            f"{spec.model} looks for what it is told in words, and was told nothing: expected the "
            "data set's class names"
        )
    return _FINDERS[model.config.model_type](model, processor, spec)


class GroundingFinder:
    """Boxes of Grounding DINO and MM Grounding DINO."""

    def __init__(self, model: Any, processor: Any, spec: AdapterSpec) -> None:
        self._model = model
        tokenizer = processor.tokenizer
        begin, end = tokenizer.cls_token_id, tokenizer.sep_token_id
        separator = tokenizer.convert_tokens_to_ids(".")
        # tokens that close a phrase: the model keeps words on either side from seeing each other
        closing = set(model.model.special_tokens.tolist())
        if not {begin, separator, end} <= closing:
            raise AdapterError(
                f"{spec.model}: its tokenizer numbers [CLS], '.' and [SEP] {begin}, {separator}, "
                f"{end}, where the model expects them among {sorted(closing)}"
            )
        limit: int = model.config.max_text_len
        self._asked = asked_of(spec, NAME)
        phrases: list[list[int]] = []
        for name, words in zip(self._asked.names, self._asked.texts, strict=True):
            ids = tokenizer(words.lower(), add_special_tokens=False).input_ids
            phrases.append([one for one in ids if one not in closing])
            check_length(name, words, len(phrases[-1]), limit - 3)
        *groups, negatives = self._asked.together
        check_room(self._asked, phrases, limit - 2)
        packed = pack(
            phrases,
            begin=begin,
            separator=separator,
            end=end,
            limit=limit,
            groups=groups,
            everywhere=negatives,
        )
        self.passes = [
            (torch.tensor([one.token_ids], device=model.device), one.spans) for one in packed
        ]

    def __call__(self, inputs: Any, sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        """Boxes of images of `sizes` (height, width), in pixels: the queries of all passes."""
        found = [self._pass(inputs, ids, spans) for ids, spans in self.passes]
        boxes, scores, class_ids = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        results = []
        for index, (height, width) in enumerate(sizes):
            pixels = boxes[index] * boxes.new_tensor([width, height, width, height])
            results.append(_wanted(pixels, scores[index], class_ids[index]))
        return results

    def _pass(
        self, inputs: Any, ids: Tensor, spans: dict[int, tuple[int, int]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes [B, Q, 4] (corners, 0..1), scores and class indices [B, Q]."""
        ids = ids.expand(len(inputs["pixel_values"]), -1)
        outputs = self._model(**inputs, input_ids=ids, attention_mask=torch.ones_like(ids))
        tokens = outputs.logits.float().sigmoid()  # [B, Q, text length]
        by_phrase = torch.stack([tokens[..., a:b].amax(-1) for a, b in spans.values()], dim=-1)
        scores, best = by_phrase.max(-1)
        class_ids = self._asked.classes(torch.tensor(list(spans), device=ids.device)[best])
        centre, size = outputs.pred_boxes.float().split(2, dim=-1)
        return torch.cat([centre - size / 2, centre + size / 2], dim=-1), scores, class_ids


class OwlFinder:
    """Boxes of OWL-ViT and OWLv2."""

    def __init__(self, model: Any, processor: Any, spec: AdapterSpec) -> None:
        if spec.option("image_size") is not None:
            side = model.config.vision_config.image_size
            raise UsageError(
                f"{spec.model} takes images of {side} pixels and no others: leave image_size out"
            )
        self._model = model
        self._processor = processor
        self._floor = spec.score_floor
        self._asked = asked_of(spec, _OWL_TEMPLATE)
        self._queries = _embed(model, processor.tokenizer, self._asked)

    def __call__(self, inputs: Any, sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        """Boxes of images of `sizes` (height, width), in pixels."""
        features = self._model.image_embedder(pixel_values=inputs["pixel_values"])[0]
        flat = features.flatten(1, 2)  # [B, patches, hidden]
        queries = self._queries.expand(len(flat), -1, -1)
        outputs = SimpleNamespace(
            logits=self._model.class_predictor(flat, queries)[0].float(),
            pred_boxes=self._model.box_predictor(flat, features).float(),
        )
        results = self._processor.post_process_grounded_object_detection(
            outputs, threshold=self._floor, target_sizes=list(sizes)
        )
        return [
            _wanted(found["boxes"], found["scores"], self._asked.classes(found["labels"]))
            for found in results
        ]


def _wanted(boxes: Tensor, scores: Tensor, class_ids: Tensor) -> Detections:
    """The detections of one image that are of a class."""
    kept = class_ids != NEGATIVE
    return Detections(*(each[kept].cpu().numpy() for each in (boxes, scores, class_ids)))


@torch.inference_mode()
def _embed(model: Any, tokenizer: Any, asked: Asked) -> Tensor:
    """An embedding of each prompt, [1, prompts, hidden], of unit length."""
    limit = model.config.text_config.max_position_embeddings
    for name, text in zip(asked.names, asked.texts, strict=True):
        # the two more mark the beginning and the end
        check_length(
            name, text, len(tokenizer(text, add_special_tokens=False).input_ids), limit - 2
        )
    texts = list(asked.texts)
    parts = []
    for start in range(0, len(texts), _TEXT_BATCH):
        part = texts[start : start + _TEXT_BATCH]
        with quiet():
            tokens = tokenizer(part, padding="max_length", max_length=limit, return_tensors="pt")
            tokens = tokens.to(model.device)
            parts.append(
                model.base_model.get_text_features(
                    input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
                ).pooler_output
            )
    embeddings = torch.cat(parts)
    return (embeddings / torch.linalg.norm(embeddings, dim=-1, keepdim=True))[None]


_FINDERS = {
    "grounding-dino": GroundingFinder,
    "mm-grounding-dino": GroundingFinder,
    "owlvit": OwlFinder,
    "owlv2": OwlFinder,
}
