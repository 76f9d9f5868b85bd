"""Check that a run can start or continue in a folder."""

from eyas.errors import CheckpointError
from eyas.run_directory import RunDirectory


def refuse_foreign_folder(run: RunDirectory, resume: bool) -> None:
    """Raise CheckpointError for a folder with files of something else, or without anything to resume.

    Changes nothing, so that a refused start leaves no lock in a folder that is not its own.
    """
    if run.manifest.exists():
        return
    if resume and not run.lock_file.exists():
        raise CheckpointError(f"{run.path}: nothing to resume; start the run without --resume.")
    if foreign := run.foreign():
        raise CheckpointError(f"{run.path}: holds no run, but {', '.join(foreign[:3])}; choose another run_directory=…")


def continues(run: RunDirectory, resume: bool) -> bool:
    """Return whether there is something to continue; call it under the run's lock.

    A start that ended before its first checkpoint left nothing, so it can be made again, with --resume or without, and
    with another recipe. Raises CheckpointError for any other run, unless it is to `resume`.
    """
    finished = run.read_manifest().get("status") == "finished"
    if not (finished or run.checkpoint_steps() or run.adapter.exists() or run.model.exists()):
        return False
    if not resume:
        raise CheckpointError(
            f"{run.path}: holds a run already ({standing(run)}). Continue it with --resume, choose another "
            "run_directory=…, or remove the folder."
        )
    return True


def standing(run: RunDirectory) -> str:
    """Return how a run that no process trains has ended: finished, or stopped at a step, and why."""
    manifest = run.read_manifest()
    if manifest.get("status") == "finished":
        return f"finished after {manifest.get('steps')} steps"
    why = manifest.get("reason") or "it was killed, or crashed"
    return f"stopped at step {last_step(run)}: {str(why).partition(chr(10))[0]}"


def last_step(run: RunDirectory) -> int:
    """Return the last step that a run has logged or saved; 0 if none."""
    try:
        logged = [int(line["step"]) for line in run.metric_lines()[-1:]]
    except CheckpointError:  # a kill cut the last line
        logged = []
    return max([0, *logged, *run.checkpoint_steps()])
