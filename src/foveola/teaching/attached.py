"""A Python module as a process that does not outlive the one that started it.

python -m foveola.teaching.attached MODULE ARGUMENTS…    as python -m MODULE ARGUMENTS…, until standard input ends

Standard input is a pipe that only the starting process holds: its end, however it comes, closes the pipe. The process
then gets SIGTERM, which lets a training write a checkpoint, and later is killed, with the processes that it started.
"""

import os
import runpy
import signal
import sys
import threading
import time

GRACE_SECONDS = 10.0
"""From SIGTERM to SIGKILL."""
# At least: pages and predictions of the server come first
_NICENESS = 5


def main() -> None:
    """Run the module that the first argument names."""
    if hasattr(os, "nice"):
        os.nice(max(_NICENESS - os.nice(0), 0))
    threading.Thread(target=_end_with_input, daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _end_with_input() -> None:
    while os.read(0, 1024):  # not sys.stdin, whose lock would be held when Python ends
        pass
    if sys.platform == "win32":  # where os.kill asks nobody
        signal.raise_signal(signal.SIGTERM)
    else:
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main()
