"""The server's log: a JSON document a line, on standard error."""

import logging
import sys
from datetime import UTC, datetime

from pydantic_core import to_json

REQUESTS = "foveola.serving.requests"


def write_logs(*, requests: bool) -> None:
    """Write down what goes wrong, and with `requests` every request; for a process that does nothing but serve."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger(REQUESTS).setLevel(logging.INFO if requests else logging.WARNING)


class _Lines(logging.Formatter):
    """The guard's messages are documents already; those of libraries become some."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.name == REQUESTS:
            return message
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        document = {"time": time, "level": record.levelname.lower(), "message": message.strip()}
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return to_json(document).decode()
