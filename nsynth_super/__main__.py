"""Run the command line as `python -m nsynth_super …`."""

import signal

# Ctrl-C during the imports ends the process without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from nsynth_super.cli import main  # noqa: E402

main()
