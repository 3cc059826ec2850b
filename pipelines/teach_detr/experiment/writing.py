"""An outcome goes to disk: JSON, Parquet, Markdown, pictures and the page."""

import pyarrow as pa
import pyarrow.parquet as pq

from box_store.places.files import replacing, write_json
from teach_detr.experiment.grid import Grid
from teach_detr.experiment.outcome import Outcome, finite, run_rows
from teach_detr.experiment.page import write_page
from teach_detr.experiment.tables import markdown


def write_outcome(outcome: Outcome, grid: Grid) -> None:
    """Write JSON, Parquet, pictures and the page into the experiment's folder."""
    write_json(grid.out / "results.json", finite(outcome.to_json()))
    with replacing(grid.out / "results.parquet") as file:
        pq.write_table(pa.Table.from_pylist(run_rows(outcome.runs)), file)
    with replacing(grid.out / "results.md") as file:
        file.write(markdown(outcome).encode())
    write_page(outcome, grid, grid.out / "page.html")
