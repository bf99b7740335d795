"""Start of the command line; an interrupt ends it without a traceback."""

import gc
import signal
import sys

# While modules load there is nothing to tidy up; who ignores interrupts (`nohup`) still does.
_TAKES_INTERRUPTS = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if _TAKES_INTERRUPTS:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start() -> int:
    """Run the command of `sys.argv`; its exit code."""
    gc.set_threshold(50_000)  # a command makes many objects and few cycles: a twentieth of its time
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
