"""Run Magenta's NSynth programs and print their behavior as JSON.

Runs under Python 2.7. Each subcommand runs Magenta's own functions, patched or not. A fake session
replaces the model and returns equal probabilities for all 256 codes. `magentas.py` is the Python 3
side.
"""

from __future__ import print_function

import argparse
import json
import logging
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


class Clock(object):
    """A fake clock that advances only on request."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Session(object):
    """A fake decoder: equal probabilities, after a given time."""

    clock = Clock()
    seconds = 0.0  # duration of a step
    steps = 0  # steps so far

    def __init__(self, config=None):
        del config

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False

    def run(self, fetches, feed_dict=None):
        import numpy as np

        if feed_dict is None:
            return None
        Session.clock.now += Session.seconds
        Session.steps += 1
        return [np.full([len(feed_dict["X"]), 256], 1 / 256.0, np.float32), None]


class Override(object):
    """A module with some of its names replaced."""

    def __init__(self, module, **others):
        self.__dict__.update(others)
        self.__dict__["_module"] = module

    def __getattr__(self, name):
        return getattr(self._module, name)


class Saver(object):
    def restore(self, session, path):
        pass


def silence(notes, checkpoint_path=None, sample_length=None):
    """Return embeddings of zeros."""
    import numpy as np

    return np.zeros([len(notes), sample_length // 512, 16])


def remove_model(fastgen):
    """Make `fastgen` encode with `silence` and decode with `Session`."""
    fastgen.encode = silence
    train = Override(fastgen.tf.train, Saver=Saver)
    fastgen.tf = Override(fastgen.tf, Session=Session, train=train)
    names = ["X", "encoding", "init_ops", "predictions", "push_ops"]
    fastgen.load_fastgen_nsynth = lambda batch_size: dict(zip(names, names))


def error_of(function, *args):
    """Call a function; return the text of its exception, or None."""
    try:
        function(*args)
    except Exception as error:
        return "%s: %s" % (type(error).__name__, error)
    return None


def arguments(args):
    """Return what `nsynth_generate` would decode, to which files and on which GPU."""
    from magenta.models.nsynth.wavenet import fastgen, nsynth_generate

    calls = []

    def synthesize(encodings, save_paths, **_):
        calls.append(
            {
                "frames": [len(encoding) for encoding in encodings],
                "first_frame": [list(map(float, encoding[0])) for encoding in encodings],
                "silent_frames": [int((encoding == 0).all(1).sum()) for encoding in encodings],
                "save_paths": save_paths,
                "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
            }
        )

    fastgen.synthesize = synthesize
    nsynth_generate.FLAGS(["nsynth_generate"] + args.flags)
    return {"error": error_of(nsynth_generate.main), "calls": calls}


def generate(args):
    """Run `nsynth_generate` without a model; return its log with times, and the steps of its saves.

    It reads .wav files, for which --sample_length has always been in samples.
    """
    from magenta.models.nsynth.wavenet import fastgen, nsynth_generate
    from tensorflow.python.platform import tf_logging

    remove_model(fastgen)
    saves, lines = [], []
    save_batch = fastgen.save_batch

    def counted(audio, paths):
        saves.append(Session.steps)
        save_batch(audio, paths)

    class Lines(logging.Handler):
        def emit(self, record):
            lines.append([Session.clock.now, record.getMessage()])

    fastgen.save_batch = counted
    Session.seconds = args.seconds
    tf_logging.get_logger().addHandler(Lines())
    sys.argv[1:] = args.flags
    original, time.time = time.time, Session.clock
    try:
        nsynth_generate.console_entry_point()
    except SystemExit as exit:
        code = exit.code or 0
    finally:
        time.time = original
    return {"exit": code, "saves": saves, "lines": [x for x in lines if "Sample:" in x[1]]}


def save_embeddings(args):
    """Run `nsynth_save_embeddings` without a model; return its error, if any."""
    from magenta.models.nsynth.wavenet import nsynth_save_embeddings

    nsynth_save_embeddings.encode = silence
    nsynth_save_embeddings.FLAGS(["nsynth_save_embeddings"] + args.flags)
    return {"error": error_of(nsynth_save_embeddings.main)}


def draw(args):
    """Return what `sample_categorical` samples from `mass` [draws, 256] with `uniform` [draws]."""
    import numpy as np
    from magenta.models.nsynth.wavenet import fastgen

    with np.load(args.arrays) as arrays:
        mass, uniform = arrays["mass"], arrays["uniform"]
    np.random.rand = lambda count: uniform[:count]
    return {"codes": fastgen.sample_categorical(mass)[:, 0].astype(int).tolist()}


def import_magenta(args):
    """Return whether `import magenta` works, and the modules of Magenta that it imports."""
    error = error_of(__import__, "magenta")
    module = sys.modules.get("magenta")
    return {
        "error": error,
        "modules": sorted(
            name for name, loaded in sys.modules.items() if loaded and name.startswith("magenta")
        ),
        "version": getattr(module, "__version__", None),
        "path": getattr(module, "__path__", [None])[0],
    }


COMMANDS = {
    "arguments": arguments,
    "generate": generate,
    "save-embeddings": save_embeddings,
    "draw": draw,
    "import": import_magenta,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=sorted(COMMANDS))
    parser.add_argument("--arrays", help="input file of draw")
    parser.add_argument("--seconds", type=float, default=0.0, help="duration of each step")
    args, args.flags = parser.parse_known_args()
    print(json.dumps(COMMANDS[args.command](args)))


if __name__ == "__main__":
    main()
