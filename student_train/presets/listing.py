"""Presets as rows: their size, what was published of them, every setting."""

from dataclasses import dataclass
from typing import Any

from student_train.config import TrainConfig, resolve
from student_train.presets import Preset, all_presets, count_parameters, load_preset
from student_train.settings.overrides import as_text, settings, to_plain


@dataclass(frozen=True)
class PresetRow:
    """A preset with its size."""

    preset: Preset
    config: TrainConfig
    n_parameters: int

    def to_json(self) -> dict[str, Any]:
        """Name, backbone, epochs, queries, parameters, published AP (percent) and its source."""
        published = self.preset.published
        return {
            "name": self.preset.name,
            "backbone": self.config.model.backbone,
            "epochs": self.config.epochs,
            "queries": self.config.model.n_queries,
            "parameters": self.n_parameters,
            "use": self.preset.use,
            "published_AP": published and published.ap,
            "published_AP_with_teachers": published and published.ap_with_teachers,
            "published_source": published and published.source,
        }


def preset_rows() -> list[PresetRow]:
    """All presets."""
    rows = []
    for name, preset in all_presets().items():
        config = load_preset(name)
        rows.append(PresetRow(preset, config, count_parameters(config)))
    return rows


def preset_settings(name: str) -> dict[str, Any]:
    """Every setting of a preset: value, text, origin, help.

    Raises:
        ConfigError: unknown preset.
    """
    resolved = resolve(load_preset(name))
    rows = {
        key: {
            "value": to_plain(setting.value),
            "text": as_text(setting.value),
            "origin": str(resolved.origins.get(key, "default")),
            "help": setting.help,
        }
        for key, setting in settings(resolved.config).items()
    }
    return {"preset": name, "settings": rows}
