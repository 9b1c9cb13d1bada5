"""`bo-sweep prepare`: from the usual files of a data set to its betons."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.commands.options import (
    INFRASTRUCTURE,
    STOPPED,
    Failure,
    all_of,
    default_data_folder,
    json_option,
    user_errors,
)

if TYPE_CHECKING:
    from workers.preparation.images import Encoding
    from workers.preparation.split import Prepared, Progress
    from workers.preparation.verify import Verified

out_option = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="BO_SWEEP_DATA",
    help="Data folder; the betons come into <out>/<data set>.  [default: the user's cache folder]",
)
workers_option = click.option(
    "--workers", type=click.IntRange(min=1), help="Processes that decode.  [default: the cores that there are]"
)
verify_option = click.option(
    "--verify", "only_verify", is_flag=True, help="Write nothing; read the betons that are there, whole."
)


def source_option(what: str) -> Callable[..., Any]:
    return click.option("--source", type=click.Path(path_type=Path, file_okay=False), help=what)


encoding_options = all_of(
    click.option(
        "--max-side",
        type=click.IntRange(8, 8192),
        default=500,
        show_default=True,
        help="Longest side in pixels; larger images are made smaller.",
    ),
    click.option(
        "--jpeg-share",
        type=click.FloatRange(0, 1),
        default=0.5,
        show_default=True,
        help="Share of images stored as JPEG; the others are stored as pixels: larger, and faster to read.",
    ),
    click.option("--quality", type=click.IntRange(1, 100), default=90, show_default=True, help="Quality of the JPEGs."),
    click.option(
        "--raw",
        type=click.IntRange(8, 8192),
        metavar="SIDE",
        help="Short for --max-side SIDE --jpeg-share 0: only pixels, for CPUs that decode more slowly than GPUs train.",
    ),
)


cifar_options = all_of(
    source_option("Folder with the official Python archive, or with what it unpacks to."),
    click.option(
        "--download", "fetch", is_flag=True, help="Fetch the archive into --source first, unless it is there."
    ),
    out_option,
    verify_option,
    json_option,
)


@click.group()
def prepare() -> None:
    """Write the betons that training reads, from a data set in its usual form.

    What is finished is not written again, what was interrupted is: give the same command again.

    \b
    Example:  bo-sweep prepare cifar10 --source downloads --download
    """


@click.command()
@cifar_options
def cifar10(source: Path | None, fetch: bool, out: Path | None, only_verify: bool, as_json: bool) -> None:
    """CIFAR-10, from its official Python archive.

    \b
    Example:  bo-sweep prepare cifar10 --source downloads --download
    """
    _prepare_cifar("cifar10", source, fetch, out, only_verify, as_json)


@click.command()
@cifar_options
def cifar100(source: Path | None, fetch: bool, out: Path | None, only_verify: bool, as_json: bool) -> None:
    """CIFAR-100 with its 100 fine classes, from its official Python archive.

    \b
    Example:  bo-sweep prepare cifar100 --source downloads --download
    """
    _prepare_cifar("cifar100", source, fetch, out, only_verify, as_json)


@click.command()
@source_option("Folder with ILSVRC2012: class folders or the original tar files, see above.")
@out_option
@encoding_options
@workers_option
@verify_option
@json_option
def imagenet(
    source: Path | None,
    out: Path | None,
    max_side: int,
    jpeg_share: float,
    quality: int,
    raw: int | None,
    workers: int | None,
    only_verify: bool,
    as_json: bool,
) -> None:
    """ImageNet (ILSVRC2012), from class folders or from the original tar files.

    Training images: train/<WordNet id>/*.JPEG, or ILSVRC2012_img_train.tar. Validation images: val/<WordNet id>/*.JPEG;
    or val/*.JPEG or ILSVRC2012_img_val.tar, with ILSVRC2012_devkit_t12 (or its .tar.gz, or Kaggle's
    LOC_val_solution.csv) beside them. Tar files are read in place. The betons are the same from every layout.

    The published ImageNet files of FFCV were written with a longest side of 500 and half of the images as JPEG for
    ResNet-50 (the default here), and with --max-side 400 --jpeg-share 0.1 for ResNet-18. --raw 400 stores pixels only:
    nothing is left to decode, and at most 639 GB are taken; with --raw 256, 262 GB.

    \b
    Example:  bo-sweep prepare imagenet --source /data/ilsvrc2012 --out /fast/betons
    """
    if only_verify:
        _verify(["imagenet"], out, workers, as_json)
        return
    source, target = _needed(source), _data_folder(out) / "imagenet"
    max_side, jpeg_share = _stored(raw, max_side, jpeg_share)
    with _told() as progress:
        from workers.preparation.imagenet import prepare_imagenet
        from workers.preparation.images import Encoding

        encoding = Encoding(max_side, jpeg_share, quality)
        betons = prepare_imagenet(
            source,
            target,
            encoding=encoding,
            workers=workers,
            announce=_announcement(encoding, target),
            progress=progress,
        )
    _report("imagenet", betons, as_json, [_command_with_data("bo-sweep launch imagenet-grid", "--data", out)])


@click.command()
@source_option("Folder with a folder of images for each class; or with train and val or test, each made so.")
@click.option("--name", help="Name of the data set, for search spaces.")
@out_option
@click.option(
    "--test-share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.2,
    show_default=True,
    help="Share of each class that is held out, where the source has no val and no test.",
)
@click.option(
    "--resolution",
    type=click.IntRange(min=8),
    default=224,
    show_default=True,
    help="Height and width in pixels that models are to see.",
)
@encoding_options
@workers_option
@verify_option
@json_option
def folder(
    source: Path | None,
    name: str | None,
    out: Path | None,
    test_share: float,
    resolution: int,
    max_side: int,
    jpeg_share: float,
    quality: int,
    raw: int | None,
    workers: int | None,
    only_verify: bool,
    as_json: bool,
) -> None:
    """Images of your own, in a folder for each class.

    Prints the lines that a search space needs (dataset: name and facts); they are kept in dataset.yaml beside the
    betons. val and test together make up the held-out images; a space cuts its validation_samples from them.

    \b
    Example:  bo-sweep prepare folder --source photos --name my-photos
    """
    if name is None:
        raise click.UsageError("give the data set a name, for example --name my-photos")
    if only_verify:
        _verify([name], out, workers, as_json)
        return
    source, target = _needed(source), _data_folder(out) / name
    max_side, jpeg_share = _stored(raw, max_side, jpeg_share)
    with _told() as progress:
        from workers.preparation.image_folder import as_yaml, check_name, prepare_folder
        from workers.preparation.images import Encoding

        check_name(name)
        encoding = Encoding(max_side, jpeg_share, quality, turn_upright=True)
        made = prepare_folder(
            source,
            target,
            name=name,
            encoding=encoding,
            resolution=resolution,
            test_share=test_share,
            workers=workers,
            announce=_announcement(encoding, target),
            progress=progress,
        )
    snippet = as_yaml(name, made.facts)
    if not as_json:
        from orchestrator.console import RESULTS

        RESULTS.print(f"# For a search space; also in {made.snippet}\n{snippet}", markup=False)
    _report(
        name,
        made.betons,
        as_json,
        [_command_with_data(f"bo-sweep prepare verify {name}", "--out", out)],
        facts=made.facts.model_dump(mode="json"),
        class_names=list(made.class_names),
        yaml=snippet,
        yaml_file=str(made.snippet),
    )


@click.command()
@click.argument("names", metavar="[DATA SET]...", nargs=-1)
@out_option
@workers_option
@json_option
def verify(names: tuple[str, ...], out: Path | None, workers: int | None, as_json: bool) -> None:
    """Read betons whole: structure, checksum, every JPEG, class counts. By default all in the data folder.

    Exits with 4 if one is damaged.

    \b
    Example:  bo-sweep prepare verify imagenet --out /fast/betons
    """
    _verify(names, out, workers, as_json)


for _command in (cifar10, cifar100, imagenet, folder, verify):
    prepare.add_command(_command)


def _stored(raw: int | None, max_side: int, jpeg_share: float) -> tuple[int, float]:
    """Longest side and share of JPEGs, as --raw says or as its two parts do."""
    if raw is None:
        return max_side, jpeg_share
    context = click.get_current_context()
    given = [
        f"--{name.replace('_', '-')}"
        for name in ("max_side", "jpeg_share", "quality")
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
    ]
    if given:
        raise click.UsageError(
            f"--raw {raw} and {', '.join(given)}: --raw says how all images are stored. Leave out one or the other"
        )
    return raw, 0.0


def _announcement(encoding: Encoding, folder: Path) -> Callable[[int], None]:
    """Tells, before any image is read, how large betons without JPEGs will be at most."""

    def announce(images: int) -> None:
        from orchestrator.console import LOG

        if not encoding.jpeg_share:
            there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
            most, free = (size / 1e9 for size in (encoding.most_bytes(images), shutil.disk_usage(there).free))
            LOG.print(
                f"{images:,} images as pixels, of at most {encoding.max_side} x {encoding.max_side}, take up to "
                f"{most:,.1f} GB; {there} has {free:,.1f} GB free",
                markup=False,
            )

    return announce


def _prepare_cifar(
    name: str, source: Path | None, fetch: bool, out: Path | None, only_verify: bool, as_json: bool
) -> None:
    if only_verify:
        _verify([name], out, None, as_json)
        return
    source = _needed(source)
    with _told() as progress:
        from workers.preparation.cifar import CIFAR_ARCHIVES, prepare_cifar

        betons = prepare_cifar(CIFAR_ARCHIVES[name], source, _data_folder(out) / name, fetch=fetch, progress=progress)
    _report(name, betons, as_json, [_command_with_data(f"bo-sweep launch {name}-grid", "--data", out)])


def _verify(names: Sequence[str], out: Path | None, workers: int | None, as_json: bool) -> None:
    """Read betons whole and tell what is wrong with them."""
    from orchestrator.console import LOG, RESULTS, print_json

    folder = _data_folder(out)
    with _told() as progress:
        from workers.preparation.verify import betons_in, verify_beton

        paths = betons_in(folder, names)
        found = [verify_beton(path, workers=workers, progress=progress) for path in paths]
    if as_json:
        print_json({"betons": [_verified_document(one) for one in found]})
    else:
        for one in found:
            RESULTS.print(_verified_line(one), markup=False)
    if any(one.problems for one in found):
        LOG.print("\nDelete what is damaged and its .json, and prepare the data set again.")
        raise SystemExit(INFRASTRUCTURE)


def _verified_document(one: Verified) -> dict[str, Any]:
    return {
        "path": str(one.path),
        "sound": not one.problems,
        "problems": list(one.problems),
        "samples": one.samples,
        "jpegs": one.jpegs,
        "has_manifest": one.has_manifest,
    }


def _verified_line(one: Verified) -> str:
    if one.problems:
        return f"{one.path}: damaged\n" + "\n".join(f"  {problem}" for problem in one.problems)
    manifest = "checksum and class counts fit" if one.has_manifest else "no manifest, so no checksum to compare with"
    return f"{one.path}: sound; {one.samples:,} samples, {one.jpegs:,} JPEGs decoded, {manifest}"


def _report(name: str, betons: Sequence[Prepared], as_json: bool, next_commands: Sequence[str], **more: Any) -> None:
    """What is there now, and what to do with it."""
    from orchestrator.console import RESULTS, print_json, print_next

    if as_json:
        listed = [{"path": str(one.path), "written": one.written, **one.manifest} for one in betons]
        print_json({"dataset": name, "betons": listed, **more})
    else:
        for one in betons:
            state = "written" if one.written else "was there already"
            RESULTS.print(
                f"{one.path}: {one.manifest['samples']:,} samples, {one.manifest['bytes'] / 1e6:,.1f} MB, {state}",
                markup=False,
            )
            if converted := one.manifest.get("converted"):
                RESULTS.print("  made RGB: " + ", ".join(f"{count:,} {kind}" for kind, count in converted.items()))
    print_next(*next_commands)


@contextmanager
def _told() -> Iterator[Progress]:
    """Show progress on a terminal while the block runs, and turn what goes wrong into a message and an exit code."""
    from orchestrator.console import LOG, print_next
    from orchestrator.stage_progress import StageProgress
    from orchestrator.stops import interruptible
    from workers.preparation.errors import HostError

    try:
        with interruptible(), user_errors(), StageProgress() as progress:
            yield progress
    except HostError as error:
        raise Failure(str(error), INFRASTRUCTURE) from error
    except KeyboardInterrupt:
        LOG.print("\nStopped. Betons that are finished stay, nothing half-written does; the same command goes on.")
        print_next(_same_command())
        raise SystemExit(STOPPED) from None


def _same_command() -> str:
    """The command line as it was given."""
    import sys

    return shlex.join(["bo-sweep", *sys.argv[1:]])


def _command_with_data(command: str, option: str, out: Path | None) -> str:
    """The command with the data folder that was asked for, where it is not the default."""
    return command if out is None else f"{command} {option} {shlex.quote(str(out))}"


def _data_folder(out: Path | None) -> Path:
    return out or default_data_folder()


def _needed(source: Path | None) -> Path:
    if source is None:
        raise click.UsageError("name the folder to read from, for example --source downloads")
    return source
