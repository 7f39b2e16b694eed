"""A folder for any host of static pages: the server's page, with the model computed in the visitor's browser.

    index.html      the page, with a policy that lets it ask its own host alone
    page/           its styles and scripts; backend.js is the one that computes in the browser
    runtime/        ONNX Runtime Web, which runs the model, with its licence
    model.onnx      the export, as `foveola export` writes it
    model.json      what the page has to know of the model
    SHA256SUMS      of all of them

No picture leaves the browser. docs/web.md says how to host it.
"""

import hashlib
import json
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from foveola import checksums
from foveola.doctor import FIXES, WITHOUT_STATISTICS
from foveola.errors import ModelError
from foveola.export import onnx
from foveola.export.onnx import OnnxModel
from foveola.export.web_runtime import runtime
from foveola.files import write_atomically
from foveola.predictions import Predictor

SUFFIX = ""

INDEX, MODEL, DESCRIPTION = "index.html", "model.onnx", "model.json"
MAX_PIXELS = 16_000_000  # of one picture, as many as the server takes; phones have no room for larger canvases

# Allows WebAssembly, and what lies beside the page
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'"
)
_CHARSET = '<meta charset="utf-8">'
# Asking the server, or answering in the browser
_BACKENDS = ("server.js", "key.js", "browser.js")


def write(source: Path, live: Predictor, target: Path) -> None:
    """Write the folder.

    Parameters
    ----------
    source : the model.safetensors of a run whose network is made of layers
    live : the same model
    target : the folder, which is not there yet

    Raises
    ------
    ModelError
        If the model's outputs are not finite.
    DownloadError
        If ONNX Runtime Web is not in the user's cache and cannot be downloaded.
    MissingExtra
        If the onnx package is not installed.
    """
    contents = {**_page(), **{f"runtime/{name}": content for name, content in runtime().items()}}
    target.mkdir()
    onnx.write(source, live, target / MODEL)
    contents[DESCRIPTION] = json.dumps(describe(onnx.open(target / MODEL)), indent=2, ensure_ascii=False).encode()
    for name, content in contents.items():
        (target / name).parent.mkdir(exist_ok=True)
        write_atomically(target / name, content)
    checksums.record_all(target)


def open(path: Path) -> OnnxModel:
    """Open the model in a folder that `write` has written, and that is whole.

    Raises
    ------
    ModelError
        If a file is missing, damaged or altered.
    """
    try:
        _check_whole(path)
    except OSError as error:
        raise ModelError(
            f"{path} is no folder that `foveola export --format web` has written, or cannot be read: {error}. "
            f"Export the run again, or correct the path."
        ) from None
    return onnx.open(path / MODEL)


def _check_whole(folder: Path) -> None:
    """Refuse a folder that is not as `write` has left it; files that have been put beside do not matter."""
    sums = folder / checksums.SUMS
    lines = sums.read_text("utf-8", "replace").splitlines()
    wanted = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if unnamed := sorted({INDEX, MODEL, DESCRIPTION} - wanted.keys()):
        raise ModelError(f"{sums} does not name {', '.join(unnamed)}, so that {folder} is not opened. Export again.")
    if missing := sorted(wanted.keys() - found):
        raise ModelError(f"{folder} lacks {', '.join(missing)}, which {sums} names. Export again.")
    for name, digest in wanted.items():
        with (folder / name).open("rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == digest
        if not same:
            raise ModelError(
                f"{folder / name} was altered or damaged: its checksum is not that of {sums}. Export again."
            )


def describe(model: OnnxModel) -> dict[str, Any]:
    """What a page has to know of a model, as plain values for JSON: the document of the server's GET /model.

    Each layer has the name of its tensor in the graph as well.
    """
    card = model.card
    return {
        "name": "model",
        "class_names": list(card.class_names),
        "image_shape": list(card.image_shape),
        "channels": card.channels,
        "polarity": card.polarity,
        "statistics": card.statistics and card.statistics.model_dump(),
        "reject": card.reject and card.reject.model_dump(),
        "layers": [layer.model_dump(mode="json") for layer in model.layers],
        "fixes": dict(FIXES) if card.statistics else {name: FIXES[name] for name in WITHOUT_STATISTICS},
        "collect": False,
        "data": card.data and card.data.model_dump(include={"name", "fingerprint", "licence"}),
        "limits": {"pixels": MAX_PIXELS},
    }


def _page() -> dict[str, bytes]:
    """The files of the page by their names in the folder."""
    # By path: imports of the server's package would point up
    page = files("foveola") / "serving" / "page"
    scripts = {f"page/{file.name}": file.read_bytes() for file in page.iterdir() if file.name not in _BACKENDS}
    del scripts[f"page/{INDEX}"]
    return {
        INDEX: _with_policy(page / INDEX),
        "page/backend.js": (page / "browser.js").read_bytes(),
        **scripts,
    }


def _with_policy(index: Traversable) -> bytes:
    before, charset, after = index.read_text("utf-8").partition(_CHARSET)
    assert charset, f"the page begins with {_CHARSET}"
    return f'{before}{charset}\n<meta http-equiv="Content-Security-Policy" content="{POLICY}">{after}'.encode()
