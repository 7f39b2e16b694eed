"""`python -m foveola`: the command line."""

import sys

from foveola.cli import main

sys.exit(main())
