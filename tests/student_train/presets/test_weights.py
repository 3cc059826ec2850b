"""The table of trained weights that others offer."""

import re

import pytest

from student_train.errors import ConfigError
from student_train.models.hub.fetching import is_hub_name
from student_train.models.hub.layout import hub_layout
from student_train.presets import all_presets, load_preset
from student_train.presets.weights import ACADEMIC, KNOWN_WEIGHTS, known_weights


@pytest.mark.parametrize("known", KNOWN_WEIGHTS, ids=lambda known: known.place)
def test_a_row_can_be_imported_and_claims_no_more_than_its_preset(known):
    config, published = load_preset(known.preset), all_presets()[known.preset].published
    if is_hub_name(known.place):
        assert re.fullmatch(r"hub:[\w.-]+/[\w.-]+", known.place)
        assert hub_layout(config.model.family) is not None
    of_preset = None if published is None else published.ap
    assert known.ap in (None, of_preset) or known.ap == known.own_ap
    assert known.by_others == ("not from its authors" in known.notes)
    assert (ACADEMIC in known.notes) == ("Objects365" in known.trained_on)
    activation = getattr(config.model, "activation", None)
    assert (activation == "silu") == ("model.activation=silu" in known.notes)


def test_places_are_named_once_and_presets_choose():
    places = [known.place for known in KNOWN_WEIGHTS]
    assert len(places) == len(set(places))
    assert {known.preset for known in known_weights("d-fine-s")} == {"d-fine-s"}
    # more data, another AP than that of the preset's own training
    assert [known.ap for known in known_weights("d-fine-s")] == [48.5, 50.7]
    assert known_weights("d-fine-micro") == []
    with pytest.raises(ConfigError, match="unknown preset 'd-fine-z'"):
        known_weights("d-fine-z")
