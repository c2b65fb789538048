"""`python -m nsynth_super …` is `nsynth-super …`."""

import signal

# Until the command line listens, Ctrl-C ends it without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from nsynth_super.cli import main  # noqa: E402

main()
