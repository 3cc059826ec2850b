"""What the report finds: strangers that install our names, rivals, Ray's token."""

import pytest

from teach_detr import doctor


def test_a_stranger_that_installs_a_package_of_ours_is_a_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "importlib.metadata.packages_distributions",
        lambda: {"box_store": ["teach-detr", "other_boxes"], "kernels": ["kernels"]},
    )
    findings = doctor._name_collisions()
    problems = [f.message for f in findings if f.level == "problem"]
    notes = [f.message for f in findings if f.level == "note"]
    assert any("other-boxes installs a package box_store too" in text for text in problems)
    assert any("kernels belongs to kernels" in text for text in notes)


def test_two_opencvs_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: "1" if "opencv" in name else None)
    assert [f.level for f in doctor._rivals()] == ["problem"]


def test_rays_token_is_mentioned_unless_switched_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    (note,) = doctor._ray_notes()
    assert str(tmp_path / "token") in note.message
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    (note,) = doctor._ray_notes()
    assert "disabled" in note.message


def test_a_problem_makes_it_unhealthy_and_a_note_does_not() -> None:
    found = doctor.diagnose()
    as_json = found.to_json()
    assert as_json["healthy"] == (not any(f.level == "problem" for f in found.findings))
    assert {row["adapter"] for row in found.licences} >= {"torchvision", "student"}


def test_a_torch_that_cannot_be_imported_is_a_problem_and_not_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.12: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    found = doctor.diagnose()
    assert (found.threads, found.devices, found.kernel) == (None, [], [])
    (problem,) = [f for f in found.findings if "torch" in f.message]
    assert problem.level == "problem"
    assert "libcudart.so.12" in problem.message
    assert not found.healthy
