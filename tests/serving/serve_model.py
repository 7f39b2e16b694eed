"""The server as a process: python serve_model.py MODEL SETTINGS

SETTINGS are JSON. The server's URL is the first line on standard output.
"""

import json
import sys
from pathlib import Path

from foveola.errors import FoveolaError
from foveola.serving.server import serve
from foveola.serving.settings import Settings


def main() -> None:
    settings = Settings(port=0, **json.loads(sys.argv[2]))
    try:
        serve(Path(sys.argv[1]), settings, announce=lambda url: print(url, flush=True))
    except FoveolaError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
