"""Web export: a folder for any static web host, whose page runs the model in the visitor's browser.

    index.html      the page, with a content security policy that only allows requests to its own host
    page/           its styles and scripts; backend.js runs the model in the browser
    runtime/        ONNX Runtime Web, which runs the model, with its licence
    model.onnx      the export, as `foveola export` writes it
    model.json      what the page needs to know of the model
    SHA256SUMS      checksums of all files

No image leaves the browser. docs/web.md says how to host it.
"""

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from foveola.errors import ModelError
from foveola.exports import onnx
from foveola.exports.model_document import WebLimits, web_model_document
from foveola.exports.onnx import OnnxModel
from foveola.exports.web_runtime import runtime_files
from foveola.files import record_checksums, verify_checksums, write_atomically
from foveola.predictions import Predictor

SUFFIX = ""

INDEX, MODEL, DESCRIPTION = "index.html", "model.onnx", "model.json"
MAX_PIXELS = 16_000_000  # of one image, as in the server; phones have no memory for larger canvases

# Allows WebAssembly, and files of the same host
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'"
)
_CHARSET = '<meta charset="utf-8">'
# Scripts of only one backend: the server's, and browser.js, which is exported as backend.js
_BACKENDS = ("server.js", "key.js", "browser.js")


def write(source: Path, live: Predictor, target: Path) -> None:
    """Write the folder.

    Parameters
    ----------
    source : the model.safetensors of a run whose network is made of a recipe's layers
    live : the same model
    target : the folder, which does not exist yet

    Raises
    ------
    ModelError
        If the model's outputs are not finite.
    DownloadError
        If ONNX Runtime Web is not in the user's cache and cannot be downloaded.
    MissingExtra
        If the onnx package is not installed.
    """
    contents = {**_page(), **{f"runtime/{name}": content for name, content in runtime_files().items()}}
    target.mkdir()
    onnx.write(source, live, target / MODEL)
    document = web_model_document(onnx.open(target / MODEL), WebLimits(pixels=MAX_PIXELS))
    contents[DESCRIPTION] = document.model_dump_json(indent=2).encode()
    for name, content in contents.items():
        (target / name).parent.mkdir(exist_ok=True)
        write_atomically(target / name, content)
    record_checksums(target)


def open(path: Path, threads: int | None = None) -> OnnxModel:
    """Open the model in a folder that `write` has written; files added beside it are ignored.

    Parameters
    ----------
    path : the folder
    threads : as of `foveola.exports.onnx.open`

    Raises
    ------
    ModelError
        If a file is missing, damaged or altered.
    """
    try:
        verify_checksums(path, required=(INDEX, MODEL, DESCRIPTION))
    except OSError as error:
        raise ModelError(f"The web export {path} cannot be read: {error}. Export the run again.") from None
    return onnx.open(path / MODEL, threads)


def _page() -> dict[str, bytes]:
    """The files of the page, by name in the folder."""
    # Read as files, because this layer may not import the server's package
    page = resources.files("foveola") / "serving" / "page"
    scripts = {f"page/{file.name}": file.read_bytes() for file in page.iterdir() if file.name not in _BACKENDS}
    del scripts[f"page/{INDEX}"]
    return {
        INDEX: _add_policy(page / INDEX),
        "page/backend.js": (page / "browser.js").read_bytes(),
        **scripts,
    }


def _add_policy(index: Traversable) -> bytes:
    before, charset, after = index.read_text("utf-8").partition(_CHARSET)
    assert charset, f"the page contains {_CHARSET}"
    return f'{before}{charset}\n<meta http-equiv="Content-Security-Policy" content="{POLICY}">{after}'.encode()
