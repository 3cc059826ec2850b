"""Names of hustvl/YOLOS."""

from torch import nn

from student_train.models.naming import rename

# ours -> official; the backbone has the official names
_NAMES = [
    (r"^backbone\.", "backbone."),
    (r"^classes\.", "class_embed."),
    (r"^boxes\.", "bbox_embed."),
]


def official_names(student: nn.Module, key: str) -> list[str]:
    """The official name of our `key`; none if it has none."""
    return rename(_NAMES, key)
