"""ONNX Runtime Web, which runs an exported model in a browser: two files of its npm package.

The package is downloaded once, into the user's cache. Its checksum is verified every time before it is read. Nothing is
extracted to disk: the two files are read from the package into memory.
"""

import base64
import os
import tarfile
import zlib
from pathlib import Path

from foveola.datasets import Progress
from foveola.datasets.download import cache_folder, retrieve
from foveola.errors import DownloadError, OutputError
from foveola.progress import no_progress

VERSION = "1.30.0"
ARCHIVE = f"onnxruntime-web-{VERSION}.tgz"
BYTES = 33_106_585
# `npm view onnxruntime-web@1.30.0 dist.integrity`
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
REGISTRY = "https://registry.npmjs.org"

# Name in the package → name in an export. Browsers refuse .mjs files from the many servers that do not know their type.
_MEMBERS = {
    "package/dist/ort.wasm.bundle.min.mjs": "ort.wasm.bundle.min.js",
    "package/dist/ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
}
_MAX_MEMBER_BYTES = 32 * 2**20

# The package names its licence, but does not include its text
_LICENCE = f"""ONNX Runtime Web {VERSION}, https://github.com/microsoft/onnxruntime

MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


def runtime_files(progress: Progress = no_progress) -> dict[str, bytes]:
    """The files of the runtime and its licence, by their name in an export.

    Parameters
    ----------
    progress : called while the package is downloaded

    Raises
    ------
    DownloadError
        If the package is not in the cache and cannot be downloaded, or does not contain the expected files.
    OutputError
        If the cache cannot be written.
    """
    archive = fetch_runtime(progress)
    files = {"LICENSE": _LICENCE.encode()}
    try:
        with tarfile.open(archive, "r|gz") as members:
            for member in members:
                if member.name in _MEMBERS:
                    files[_MEMBERS[member.name]] = _read_member(members, member)
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise DownloadError(f"{archive} cannot be read: {error}. Delete it, and export again.") from error
    if missing := sorted(set(_MEMBERS.values()) - files.keys()):
        raise DownloadError(
            f"{archive} lacks {', '.join(missing)}, so it is not the expected package. Delete it, and export again."
        )
    return files


def fetch_runtime(progress: Progress = no_progress) -> Path:
    """Download the package into the user's cache, unless an intact copy is already there; returns its path.

    The registry is NPM_CONFIG_REGISTRY, or else npm's own. Raises like `runtime_files`.
    """
    import requests

    folder = cache_folder()
    registry = os.environ.get("NPM_CONFIG_REGISTRY", REGISTRY).rstrip("/")
    url = f"{registry}/onnxruntime-web/-/{ARCHIVE}"
    known_hash = "sha512:" + base64.b64decode(INTEGRITY.removeprefix("sha512-")).hex()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return retrieve(url, known_hash, folder / ARCHIVE, progress)
    except (requests.RequestException, ValueError) as error:  # ValueError: the checksum differs
        raise DownloadError(
            f"ONNX Runtime Web, which runs the model in the browser, could not be downloaded from {url}: {error}. "
            f"Without a network connection, run `npm pack onnxruntime-web@{VERSION}` on another machine, put {ARCHIVE} "
            f"({BYTES / 1e6:.0f} MB) into {folder}, and export again."
        ) from error
    except OSError as error:
        raise OutputError(
            f"ONNX Runtime Web cannot be stored in {folder}: {error.strerror}. "
            f"Free some disk space, or choose another folder with FOVEOLA_CACHE."
        ) from error


def _read_member(members: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if not member.isfile() or member.size > _MAX_MEMBER_BYTES:
        raise tarfile.TarError(f"{member.name} is not a file of at most {_MAX_MEMBER_BYTES:,} bytes")
    stream = members.extractfile(member)
    assert stream is not None, "it is None only for members that are not files"
    return stream.read()
