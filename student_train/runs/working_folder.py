"""Where on this machine a run is trained: in its folder, or in the working copy of one at a URL."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from box_store.places.lease import hold
from box_store.places.locations import Location, RemotePath
from student_train.errors import RunError
from student_train.machine.distributed import World
from student_train.runs.mirror import Mirror
from student_train.runs.publisher import Publisher
from student_train.runs.run_folder import RunFolder


@contextmanager
def working_folder(
    place: Location, world: World, console: Console, fresh: bool, dry_run: bool
) -> Iterator[RunFolder]:
    """The folder to train in; all processes must call. `place` itself unless it is a URL.

    The working copy of a URL holds what is there unless the run begins anew (`fresh`), and is
    copied back, by the first process, whenever the run publishes and at the end. A dry run's is as
    it is. Whoever trains there already, maybe on a machine given up for lost, is displaced.

    Raises:
        RemoteError: the URL does not answer at the start.
        RunError: the block ended well, but the URL could not be brought up to date.
        TakenOver: another machine goes on with the run; also from `RunFolder.publish`.
    """
    if not isinstance(place, RemotePath):
        yield RunFolder(place)
        return
    if dry_run or not world.is_first:
        world.barrier()
        mirror = Mirror(place)
        if not dry_run:
            mirror.follow(fresh)
        yield RunFolder(mirror.local, place)
        return
    with hold(place, takeover=True) as lease:
        mirror = Mirror(place, lease.check)
        mirror.open(fresh)
        world.barrier()
        publisher = Publisher(mirror.push)
        try:
            yield RunFolder(mirror.local, place, publisher.ask)
        except BaseException:
            if behind := _behind(mirror, publisher.finish()):
                console.print(f"warning   {behind}", markup=False, highlight=False, soft_wrap=True)
            raise
        if behind := _behind(mirror, publisher.finish()):
            raise RunError(behind)


def _behind(mirror: Mirror, failure: str) -> str:
    if not failure:
        return ""
    return (
        f"{mirror.remote} is behind the run: its newest state is that of step "
        f"{mirror.step_at_url()} ({failure}). All of it is in {mirror.local}: on this machine "
        f"`student-train train --resume --out {mirror.remote}` copies the rest"
    )
