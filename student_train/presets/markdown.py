"""The table of presets as documentation shows it."""

from student_train.presets import all_presets, count_parameters, load_preset

_HEAD = (
    "| preset | family | backbone | epochs | queries | parameters | AP | + Aux | for |",
    "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
)


def presets_markdown() -> str:
    """A line a preset; AP and + Aux as their authors published them, empty where nobody did."""
    lines: list[str] = [*_HEAD]
    for name, preset in all_presets().items():
        config = load_preset(name)
        published = preset.published
        cells = (
            f"`{name}`",
            config.model.family,
            config.model.backbone,
            config.epochs,
            config.model.n_queries,
            f"{count_parameters(config) / 1e6:.1f} M",
            published.ap if published else "",
            published.ap_with_teachers or "" if published else "",
            preset.use,
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)
