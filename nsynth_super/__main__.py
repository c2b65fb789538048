"""`python -m nsynth_super …` is `nsynth-super …`."""

from nsynth_super.cli import main

main()
