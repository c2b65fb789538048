"""Run and supervise work: workers, progress, signals, subprocesses."""
