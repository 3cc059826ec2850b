"""The command `doctor`."""

import typer

from box_store.patience import if_it_takes
from teach_detr.terminal import AsJson, open_console, print_json


def doctor(as_json: AsJson = False) -> None:
    """Versions, devices, attention backend and why, extras, licences, what collides.

    Ends with 1 if something was found that will go wrong.
    """
    from teach_detr.doctor import diagnose, print_diagnosis

    with if_it_takes("looking at this machine"):
        diagnosis = diagnose()
    if as_json:
        print_json(diagnosis.to_json())
    else:
        print_diagnosis(diagnosis, open_console())
    if not diagnosis.healthy:
        raise typer.Exit(1)
