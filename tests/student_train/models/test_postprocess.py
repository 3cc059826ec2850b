import torch

from student_train.models.output import Prediction, StudentOutput
from student_train.models.postprocess import top_k


def output() -> StudentOutput:
    logits = torch.tensor([[[0.0, 3.0], [2.0, -1.0]], [[-9.0, -9.0], [-8.0, 1.0]]])
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.25, 0.75, 0.1, 0.1]]]).repeat(2, 1, 1)
    return StudentOutput([Prediction(logits, boxes)])


def test_pairs_of_query_and_class_in_order() -> None:
    sizes = torch.tensor([[100, 200], [10, 10]])  # (height, width)
    first, second = top_k(output(), sizes, 3)
    torch.testing.assert_close(first.scores, torch.tensor([3.0, 2.0, 0.0]).sigmoid())
    assert first.labels.tolist() == [1, 0, 0]
    torch.testing.assert_close(
        first.boxes_xyxy,
        torch.tensor([[80.0, 30, 120, 70], [40, 70, 60, 80], [80, 30, 120, 70]]),
    )
    assert second.labels.tolist() == [1, 0, 0]
    torch.testing.assert_close(second.boxes_xyxy[0], torch.tensor([2.0, 7, 3, 8]))


def test_fewer_pairs_than_asked() -> None:
    assert len(top_k(output(), torch.tensor([[1, 1], [1, 1]]), 300)[0].scores) == 4


def test_softmax_gives_every_query_its_likeliest_class_but_no_object() -> None:
    logits = torch.tensor([[[1.0, 2.0, 9.0], [3.0, 1.0, 0.0], [0.0, 0.5, 0.0]]])
    boxes = torch.rand(1, 3, 4)
    output = StudentOutput([Prediction(logits, boxes)], classification="softmax")
    (found,) = top_k(output, torch.tensor([[1, 1]]), 2)
    assert found.labels.tolist() == [0, 1]
    torch.testing.assert_close(found.scores, logits.softmax(-1)[0, [1, 2], [0, 1]])
    torch.testing.assert_close(found.boxes_xyxy[:, 2:] - found.boxes_xyxy[:, :2], boxes[0, 1:, 2:])
    assert len(top_k(output, torch.tensor([[1, 1]]), 100)[0].scores) == 3
