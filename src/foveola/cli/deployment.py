"""Commands of the panel Deployment: predict, export, import, serve, teach."""

import re
import webbrowser
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foveola.cli.options import (
    DEVICES,
    AllowHost,
    ApiKey,
    DeviceName,
    Fixes,
    Grey,
    Host,
    ImageColumn,
    ImageRoot,
    Json,
    Model,
    Port,
    PredictingThreads,
    Quiet,
    one_of,
    parse_fixes,
    parse_image_shape,
    parse_key,
    parse_range,
    parse_size,
    table_columns,
)
from foveola.cli.output import show, to_json
from foveola.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from foveola.workflow.predict import Refusal

# Of images that cannot be used, so many are explained
_MOST_REFUSALS = 20


def predict(
    model: Model,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE",
            help="Files, folders, patterns such as 'scans/*.png', or - (standard input); or a table of images.",
        ),
    ],
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Number of classes to list.")] = 3,
    grey: Grey = False,
    fix: Fixes = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write the predictions to this file: a CSV table or, by its suffix, .json, .jsonl or .parquet.",
        ),
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With --out: write only ids and classes, for Kaggle. Ids: this column of the table, or numbers "
            "from 1; of files, their names.",
        ),
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With --id-column: name of the column of classes. Default: label; for several labels an image, a "
            "column of zeros and ones for each.",
        ),
    ] = None,
    image_column: ImageColumn = None,
    image_root: ImageRoot = None,
    seen: Annotated[
        Path | None,
        typer.Option(
            "--show", metavar="FOLDER", help="Write what the network sees, before and after fixes, as PNG files."
        ),
    ] = None,
    device: DeviceName = "auto",
    threads: PredictingThreads = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Classify images; differences from the training images are reported, never silently fixed."""
    from foveola.files import check_writable, write_atomically, writing
    from foveola.inputs.prepare import Prediction, prediction_document
    from foveola.workflow.open import metadata_of, open_model
    from foveola.workflow.predict import Refusal, predict_each
    from foveola.workflow.prediction_files import check_format, encode_predictions, encode_submission, image_ids

    if out is not None:
        check_writable(out.parent)
        check_format(out)
    elif id_column is not None:
        raise UserError("--id-column says what is written, but there is no --out. Add --out submission.csv.")
    predictor = open_model(model, device=one_of("device", device, DEVICES), threads=threads)
    answers = list(
        predict_each(
            predictor, images, grey=grey, fix=parse_fixes(fix), show=seen, top=top,
            columns=table_columns(image=image_column, root=image_root), verbose=not quiet,
        )
    )  # fmt: skip
    predictions = [answer for answer in answers if isinstance(answer, Prediction)]
    refused = [answer for answer in answers if isinstance(answer, Refusal)]
    document = {
        "predictions": [{"image": one.image, **prediction_document(one)} for one in predictions],
        "refused": [asdict(refusal) for refusal in refused],
    }
    if out is not None:
        if id_column is not None:
            ids = image_ids(images, answers, id_column)
            content: str | bytes = encode_submission(answers, ids, id_column, label_column, metadata_of(predictor), out)
        else:
            content = to_json(document) + "\n" if out.suffix == ".json" else encode_predictions(answers, out)
        with writing(out):
            write_atomically(out, content)
    if predictions:
        show(document, as_json, lambda tables: tables.predictions(predictions, out))
    if refused:
        raise UserError(_refusals_text(refused, len(answers)))


def _refusals_text(refused: "Sequence[Refusal]", images: int) -> str:
    reasons = [refusal.reason for refusal in refused[:_MOST_REFUSALS]]
    if images == 1:
        return reasons[0]
    more = [f"… and {len(refused) - _MOST_REFUSALS} more"] if len(refused) > _MOST_REFUSALS else []
    answered = "the others are answered" if len(refused) < images else "none is answered"
    return "\n".join([f"{len(refused)} of {images} images cannot be used; {answered}.", *reasons, *more])


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    format: Annotated[
        str, typer.Option(metavar="FORMAT", help="onnx, safetensors, or web (a page for any static host).")
    ] = "onnx",
    int8: Annotated[
        bool, typer.Option("--int8", help="Compute in 8-bit integers; kept only if it is faster here and as accurate.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file or folder to write. Default: in RUN/exports.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Images to compare on. Default: the run's own data."),
    ] = None,
    skip_bad: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Skip up to N unreadable images. Default: as many as the training skipped."
        ),
    ] = None,
    threads: PredictingThreads = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a run's model in another format; it is kept only if its logits equal the model's."""
    from foveola.workflow.export import export as export_model

    report = export_model(
        run, format, int8=int8, out=out, data=data, skip_bad=skip_bad, threads=threads, verbose=not quiet
    )
    document = {
        "path": str(report.path),
        "format": report.format,
        "size_bytes": report.size_bytes,
        "parity": {
            "largest_difference": report.parity.largest_difference,
            "images": report.parity.images,
            "batch_sizes": list(report.parity.batch_sizes),
        },
        "int8": None if report.gain is None else asdict(report.gain),
    }
    show(document, as_json, lambda tables: tables.export(report))


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A model that Keras has saved: .keras or .h5.")],
    classes: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Class names in the order of the outputs: a,b,c. Default: 0,1,2,…"),
    ] = None,
    class_names: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A text file with one class name per line, instead of --classes."),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(metavar="HxWxC", help="Shape of the images, such as 28x28x1, if the file does not give it."),
    ] = None,
    pixel_range: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,HIGH",
            help="Values of black and white that the network expects, such as -1,1. Default: 0,1; or 0,255 if it "
            "begins with Rescaling.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="RUN", help="The run to write. Default: in runs.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a run that is there already.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn a Keras model into a run; nothing in its file is executed, and unknown layers are refused."""
    from foveola.documents import ImportedRun
    from foveola.workflow.import_model import import_model

    if classes is not None and class_names is not None:
        raise UserError("--classes and --class-names both name the classes. Give one of them.")
    run = import_model(
        file,
        class_names=class_names if classes is None else classes.split(","),
        image_shape=None if image is None else parse_image_shape(image),
        pixel_range=None if pixel_range is None else parse_range(pixel_range),
        out=out,
        force=force,
        verbose=as_json and not quiet,  # the table says it, too
    )
    document = ImportedRun(**vars(run.status), run=str(run.path))
    show(document, as_json, lambda tables: tables.imported(document))


def serve(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="A run directory, an exported .onnx file, or a web export's folder."),
    ],
    host: Host = "127.0.0.1",
    port: Port = 8000,
    workers: Annotated[
        int, typer.Option(min=1, max=256, metavar="N", help="Worker processes that share the port; up to one per core.")
    ] = 1,
    api_key: ApiKey = None,
    allow_host: AllowHost = None,
    max_body: Annotated[
        str, typer.Option(metavar="SIZE", help="Largest request body, such as 500kB or 2MiB.")
    ] = "16MiB",
    max_pixels: Annotated[int, typer.Option(min=1, metavar="N", help="Largest image, in pixels.")] = 16_000_000,
    receive_timeout: Annotated[str, typer.Option(metavar="TIME", help="Time limit for receiving a request.")] = "10s",
    queue: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Images that may wait for the model; further requests are rejected with 503."
        ),
    ] = 256,
    collect: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Let the page save corrected images there, as training data."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The model's name in URLs. Default: the run's.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print name and URL as one JSON document when the server is ready.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Serve a model over HTTP: web page, REST API, Open Inference Protocol."""
    from foveola.cli.options import parse_duration
    from foveola.serving.settings import Settings
    from foveola.text import printable
    from foveola.workflow.serve import name_of, warning_without_key
    from foveola.workflow.serve import serve as serve_model

    if name is not None and re.fullmatch(r"[A-Za-z0-9._-]{1,128}", name) is None:
        raise UserError(f"--name is {name!r}; a name in URLs has letters, digits, dots, dashes and underscores.")
    settings = Settings(
        host=host,
        port=port,
        workers=workers,
        name=name or name_of(model),
        api_key=parse_key(api_key),
        allowed_hosts=tuple(allow_host or ()),
        max_body_bytes=parse_size(max_body),
        max_pixels=max_pixels,
        receive_seconds=parse_duration(receive_timeout),
        queue_images=queue,
        collect=collect,
        log_requests=not quiet,
    )
    if (warning := warning_without_key(settings, "use the model")) is not None:
        typer.echo(warning, err=True)

    def announce(url: str) -> None:
        typer.echo(f"Serving {printable(settings.name)} at {url} (Ctrl+C to stop)", err=True)
        if as_json:
            typer.echo(to_json({"name": settings.name, "url": url}))

    serve_model(model, settings, announce=announce, verbose=not quiet)


def teach(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="Folder of class folders with images; created if it is missing.")
    ] = Path("pictures"),
    host: Host = "127.0.0.1",
    port: Port = 8000,
    api_key: ApiKey = None,
    allow_host: AllowHost = None,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print folder and URL as one JSON document when the page is ready.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Collect images, train, try and correct a classifier on one page."""
    from foveola.serving.settings import Settings
    from foveola.text import printable
    from foveola.workflow.serve import warning_without_key
    from foveola.workflow.teach import SEE_IMAGES, SHUTDOWN_SECONDS
    from foveola.workflow.teach import teach as open_page

    settings = Settings(
        host=host,
        port=port,
        api_key=parse_key(api_key),
        allowed_hosts=tuple(allow_host or ()),
        shutdown_seconds=SHUTDOWN_SECONDS,
        log_requests=False,
    )
    if (warning := warning_without_key(settings, SEE_IMAGES)) is not None:
        typer.echo(warning, err=True)

    def announce(url: str) -> None:
        typer.echo(f"Open {url} to teach {printable(str(folder))} (Ctrl+C to stop)", err=True)
        if as_json:
            typer.echo(to_json({"folder": str(folder), "url": url}))
        if browser:
            webbrowser.open(url)

    open_page(folder, settings, announce=announce, verbose=not quiet)
