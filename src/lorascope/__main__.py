"""The start of the command line, which an interrupt at any moment ends without a traceback."""

import signal
import sys

# While modules load there is nothing to tidy up; who ignores interrupts (`nohup`) still does.
_TAKES_INTERRUPTS = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if _TAKES_INTERRUPTS:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start() -> int:
    """Runs the command of `sys.argv`; its exit code."""
    from lorascope.cli.main import main

    try:
        if _TAKES_INTERRUPTS:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return main()
    except KeyboardInterrupt:
        return 130
    finally:
        if _TAKES_INTERRUPTS:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(start())
