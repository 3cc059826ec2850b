"""Models that are told in words what to look for: what is asked, and whose boxes come back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from box_store.errors import UsageError
from teacher_infer.adapters.loading import quiet
from teacher_infer.adapters.open_vocabulary_texts import pack
from teacher_infer.adapters.protocol import AdapterError, AdapterSpec
from teacher_infer.teachers.loaded import load_teacher, weights_files

Pictures = dict[str, np.ndarray]

# two classes share a word, one name is a part of another, one has a full stop in it
NAMES = ("tv", "remote control", "hot dog", "dog", "traffic light", "st. bernard")
OWL = ["owlvit", "owlv2"]


def spec(model: Path, floor: float = 0.0, **changes: Any) -> AdapterSpec:
    settings: dict[str, Any] = {"prompts": dict.fromkeys(NAMES), "threads": 1}
    return AdapterSpec("transformers", str(model), score_floor=floor, **(settings | changes))


def raw(teacher: Any, images: list[np.ndarray]) -> list[Any]:
    """What the detector says before floor, order and clipping."""
    return teacher._detector.detect(images)


def test_phrases_fill_texts_up_to_the_limit_and_their_places_are_known() -> None:
    phrases = [[7], [8, 9], [10, 11, 12], [13]]
    passes = pack(phrases, begin=1, separator=2, end=3, limit=8)
    assert [one.token_ids for one in passes] == [
        (1, 7, 2, 8, 9, 2, 3),
        (1, 10, 11, 12, 2, 13, 2, 3),
    ]
    for one in passes:
        for index, (first, last) in one.spans.items():
            assert list(one.token_ids[first:last]) == phrases[index]
    assert sorted(index for one in passes for index in one.spans) == [0, 1, 2, 3]
    # one token less, and the fourth needs a text of its own
    assert len(pack(phrases, begin=1, separator=2, end=3, limit=7)) == 3


def test_phrases_of_a_class_stay_together_and_negative_ones_are_in_every_text() -> None:
    phrases = [[7], [8, 9], [10], [11], [12, 13]]
    passes = pack(
        phrases,
        begin=1,
        separator=2,
        end=3,
        limit=12,
        groups=[[0], [1, 2], [3]],
        everywhere=[4],
    )
    assert [one.token_ids for one in passes] == [
        (1, 7, 2, 8, 9, 2, 10, 2, 12, 13, 2, 3),
        (1, 11, 2, 12, 13, 2, 3),
    ]
    for one in passes:
        for index, (first, last) in one.spans.items():
            assert list(one.token_ids[first:last]) == phrases[index]


@pytest.mark.slow
def test_grounding_dino_predicts_what_the_library_does(
    grounding_folder: Path, images: list[np.ndarray]
) -> None:
    """Its boxes are the library's; its classes are the library's map of tokens to phrases."""
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor
    from transformers.models.grounding_dino.modeling_grounding_dino import build_label_maps

    names = NAMES[:-1]  # the library takes a full stop for the end of a class
    teacher = load_teacher(spec(grounding_folder, prompts=dict.fromkeys(names)))
    with quiet(), torch.inference_mode():
        processor: Any = AutoProcessor.from_pretrained(grounding_folder)
        model: Any = AutoModelForZeroShotObjectDetection.from_pretrained(grounding_folder).eval()
        for image in images:
            inputs = processor(images=image, text=[list(names)], return_tensors="pt")
            outputs = model(**inputs)
            theirs = processor.post_process_grounded_object_detection(
                outputs, threshold=-1.0, target_sizes=[image.shape[:2]]
            )[0]
            (phrases,) = build_label_maps(outputs.logits, inputs["input_ids"])
            tokens = outputs.logits[0].sigmoid()[:, None] * phrases[None]
            scores, labels = tokens.amax(-1).max(-1)
            ours = raw(teacher, [image])[0]
            assert np.abs(ours.boxes_xyxy - theirs["boxes"].numpy()).max() < 1e-3
            assert ours.scores == pytest.approx(scores.numpy(), abs=1e-6)
            assert ours.class_ids.tolist() == labels.tolist()
            assert len(set(labels.tolist())) > 1
            # the library's score is that of the best token, be it of a class or a full stop
            in_class = np.isclose(ours.scores, theirs["scores"].numpy(), atol=1e-6)
            assert in_class.any()
            assert (ours.scores <= theirs["scores"].numpy() + 1e-6).all()


@pytest.mark.slow
def test_classes_beyond_the_token_limit_are_asked_for_in_another_pass(
    grounding_folder: Path, pictures: Pictures
) -> None:
    names = [*NAMES, *(f"thing {letter}" for letter in "abcdef")]
    together = load_teacher(spec(grounding_folder, prompts=dict.fromkeys(names)))
    passes: Any = together._detector._find.passes  # type: ignore[attr-defined]
    assert len(passes) == 2
    split = len(passes[0][1])
    found = raw(together, [pictures["first"], pictures["second"]])
    for part, shift in ((names[:split], 0), (names[split:], split)):
        alone = load_teacher(spec(grounding_folder, prompts=dict.fromkeys(part)))
        for mine, both in zip(
            raw(alone, [pictures["first"], pictures["second"]]), found, strict=True
        ):
            rows = slice(None, 12) if shift == 0 else slice(12, None)
            assert both.boxes_xyxy[rows] == pytest.approx(mine.boxes_xyxy, abs=1e-3)
            assert both.class_ids[rows].tolist() == (mine.class_ids + shift).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("kind", OWL)
def test_owl_predicts_what_the_library_does(
    kind: str, owl_folder: Any, images: list[np.ndarray], pictures: Pictures
) -> None:
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    folder = owl_folder(kind)
    teacher = load_teacher(spec(folder, floor=0.3, prompts=dict.fromkeys(NAMES) | {"tv": "big tv"}))
    words = ["big tv", *(f"a photo of a {name}" for name in NAMES[1:])]
    with quiet(), torch.inference_mode():
        processor: Any = AutoProcessor.from_pretrained(folder)
        model: Any = AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
        for batch in (*([image] for image in images), [pictures["first"], pictures["second"]]):
            inputs = processor(images=batch, text=[words] * len(batch), return_tensors="pt")
            theirs = processor.post_process_grounded_object_detection(
                model(**inputs), threshold=0.3, target_sizes=[image.shape[:2] for image in batch]
            )
            for mine, other in zip(raw(teacher, batch), theirs, strict=True):
                assert len(mine.scores) > 0
                assert np.abs(mine.boxes_xyxy - other["boxes"].numpy()).max() < 1e-3
                assert mine.scores == pytest.approx(other["scores"].numpy(), abs=1e-6)
                assert mine.class_ids.tolist() == other["labels"].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grounding", *OWL])
def test_the_best_of_several_prompts_counts_and_negative_ones_take_boxes_away(
    kind: str, grounding_folder: Path, owl_folder: Any, pictures: Pictures
) -> None:
    """As if every prompt were a class of its own, whose boxes go to the class that it is of."""
    folder = grounding_folder if kind == "grounding" else owl_folder(kind)
    texts = ("tv", "screen", "dog", "puppy", "toy")
    # of OWL no text stands in a template here, as prompts do not
    apart = raw(
        load_teacher(spec(folder, prompts=dict.fromkeys(texts), options={"template": "{}"})),
        [pictures["first"], pictures["second"]],
    )
    together = raw(
        load_teacher(
            spec(folder, prompts={"tv": "tv|screen", "dog": "dog|puppy"}, negatives=("toy",))
        ),
        [pictures["first"], pictures["second"]],
    )
    gone = 0
    for alone, merged in zip(apart, together, strict=True):
        kept = alone.class_ids < 4
        gone += int((~kept).sum())
        assert merged.boxes_xyxy == pytest.approx(alone.boxes_xyxy[kept], abs=1e-3)
        assert merged.scores == pytest.approx(alone.scores[kept], abs=1e-6)
        assert merged.class_ids.tolist() == (alone.class_ids[kept] // 2).tolist()
    assert gone > 0


@pytest.mark.slow
def test_negative_prompts_are_asked_in_every_pass(
    grounding_folder: Path, pictures: Pictures
) -> None:
    names = [*NAMES, *(f"thing {letter}" for letter in "abcdef")]
    teacher = load_teacher(spec(grounding_folder, prompts=dict.fromkeys(names), negatives=("toy",)))
    passes: Any = teacher._detector._find.passes  # type: ignore[attr-defined]
    assert len(passes) > 1
    assert all(len(names) in spans for _, spans in passes)
    (found,) = raw(teacher, [pictures["first"]])
    assert set(found.class_ids.tolist()) <= set(range(len(names)))


@pytest.mark.slow
def test_a_picture_gives_the_same_boxes_in_any_company(
    grounding_folder: Path, owl_folder: Any, pictures: Pictures
) -> None:
    for folder in (grounding_folder, owl_folder("owlv2")):
        teacher = load_teacher(spec(folder, floor=0.1))
        together = teacher.predict(list(pictures.values()))
        assert sum(len(boxes) for boxes in together) > 0
        for image, boxes in zip(pictures.values(), together, strict=True):
            alone = teacher.predict([image])[0]
            assert alone.boxes_xyxy == pytest.approx(boxes.boxes_xyxy, abs=1e-3)
            assert alone.class_ids.tolist() == boxes.class_ids.tolist()


@pytest.mark.slow
def test_words_that_the_model_cannot_take_are_a_sentence(
    grounding_folder: Path, owl_folder: Any, detr_folder: Path
) -> None:
    long = " ".join(["word"] * 40)
    owl = owl_folder("owlv2")
    for folder, limit in ((grounding_folder, 29), (owl, 14)):
        with pytest.raises(UsageError, match=f"prompt of tv .* tokens, the model reads {limit}"):
            load_teacher(spec(folder, prompts={"tv": long}))
        with pytest.raises(UsageError, match="was told nothing: expected the data set's class"):
            load_teacher(spec(folder, prompts={}))
        with pytest.raises(UsageError, match="template=a photo: expected"):
            load_teacher(spec(folder, options={"template": "a photo"}))
    with pytest.raises(UsageError, match=r"holds nothing .*prompts\.\?=TEXT"):
        load_teacher(spec(grounding_folder, prompts={"?": None}))
    many = "|".join(f"a long word {letter}" for letter in "abcdefghij")
    with pytest.raises(UsageError, match=r"the 10 texts of prompts\.tv have .* at once"):
        load_teacher(spec(grounding_folder, prompts={"tv": many}))
    for prompts, others in (({"tv": "dog", "dog": None}, ()), ({"dog": None}, ("dog",))):
        with pytest.raises(UsageError, match=r"is asked for 'dog' twice, by .*prompts\.dog"):
            load_teacher(spec(grounding_folder, prompts=prompts, negatives=others))
    with pytest.raises(UsageError, match="reads no prompts"):
        load_teacher(spec(detr_folder, prompts={"person": None}, negatives=("toy",)))
    with pytest.raises(UsageError, match="takes images of 32 pixels and no others"):
        load_teacher(spec(owl, options={"image_size": "64"}))
    with pytest.raises(UsageError, match="has classes of its own and reads no prompts"):
        load_teacher(spec(detr_folder, prompts={"person": "somebody"}))
    # the driver names the classes to every teacher; without words of the user they don't matter
    assert load_teacher(spec(detr_folder, prompts={"person": None})).class_names[1] == "person"


@pytest.mark.slow
def test_its_files_are_the_tokenizers_too_and_a_pickle_is_none_of_them(
    grounding_folder: Path, tmp_path: Path
) -> None:
    assert [path.name for path in weights_files(spec(grounding_folder))] == [
        "config.json",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
    ]
    for path in grounding_folder.iterdir():
        if path.name != "model.safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    assert "pytorch_model.bin" not in [path.name for path in weights_files(spec(tmp_path))]
    with pytest.raises(AdapterError, match=r"can't load .*model\.safetensors"):
        load_teacher(spec(tmp_path))


@pytest.mark.slow
def test_weights_that_leave_a_part_random_are_refused(detr_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for path in detr_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    tensors.pop("class_labels_classifier.weight")
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(AdapterError, match=r"lack 1 tensors .*class_labels_classifier\.weight"):
        load_teacher(spec(tmp_path, prompts={}))


@pytest.mark.slow
def test_the_data_sets_classes_are_asked_for_and_come_back_as_its_categories(
    owl_folder: Any, make_folder: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from box_store.store.reader import read_boxes
    from box_store.store.store import BoxStore
    from teacher_infer.cli import main

    def run(prompt: str) -> int:
        teacher = f"owl=transformers:{folder},score_floor=0.0,threads=1"
        arguments = ["--data", data, "--split", "train", "--store", tmp_path / "store", "--local"]
        with pytest.raises(SystemExit) as caught:
            main(["run", *map(str, arguments), "--teacher", f"{teacher},prompts.kite={prompt}"])
        return int(caught.value.code or 0)

    data, folder = make_folder(3), owl_folder("owlv2")
    assert run("a kite, up") == 0
    store = BoxStore.open(tmp_path / "store")
    record = store.teachers["owl"]
    assert record.class_map == {"person": 1, "car": 3, "kite": 7}
    assert record.options["prompts"] == {"kite": "a kite, up"}
    found = set(read_boxes(store, "owl", ["category_id"])["category_id"].to_pylist())
    assert found
    assert found <= {1, 3, 7}
    capsys.readouterr()
    for other in ("a toy", "a kite, up|a toy", "a kite, up,not=a toy"):
        assert run(other) != 0
        assert ("options.not" if "not=" in other else "options.prompts") in capsys.readouterr().err
