"""Files that never answer: `teacher_infer.run.deadline`."""

import os
import threading
from pathlib import Path

import pytest

from teacher_infer.adapters.protocol import AdapterError
from teacher_infer.run.deadline import in_time
from teacher_infer.teachers.parsing import parse_teacher
from teacher_infer.teachers.spec import TeacherSpec


def spec(limit: str = "0.2") -> TeacherSpec:
    return parse_teacher(f"tiny=onnx:m.onnx,load_timeout={limit}")


@pytest.mark.parametrize("limit", ["60", "none"])
def test_what_answers_in_time_is_passed_on(limit: str) -> None:
    assert in_time(spec(limit), "reading", lambda: 7) == 7

    def fail() -> None:
        raise TimeoutError("of its own")

    with pytest.raises(TimeoutError, match="of its own"):
        in_time(spec(limit), "reading", fail)


def test_a_file_that_never_answers_is_a_sentence(tmp_path: Path) -> None:
    pipe = tmp_path / "weights"
    os.mkfifo(pipe)
    with pytest.raises(AdapterError, match=r"tiny: reading took longer than 0\.2 s.*m\.onnx"):
        in_time(spec(), "reading", pipe.read_bytes)
    # let the reader go
    pipe.open("wb").close()
    for thread in threading.enumerate():
        if thread.name == "reading":
            thread.join(10)
            assert not thread.is_alive()
