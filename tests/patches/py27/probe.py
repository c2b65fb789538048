"""What Magenta's NSynth programs do, told as JSON, patched or not. Runs under Python 2.7.

Each subcommand runs Magenta's own functions. The model is left out: where one would be loaded, a
session answers that gives all 256 codes the same probability. `magentas.py` is the Python 3 side.
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
    """A clock that only goes when told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Session(object):
    """Stands in for the decoder on a GPU: even probabilities, after a given time."""

    clock = Clock()
    seconds = 0.0  # that a step takes
    steps = 0  # so far

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


class Without(object):
    """A module, but for some of its names."""

    def __init__(self, module, **others):
        self.__dict__.update(others)
        self.__dict__["_module"] = module

    def __getattr__(self, name):
        return getattr(self._module, name)


class Saver(object):
    def restore(self, session, path):
        pass


def silence(notes, checkpoint_path=None, sample_length=None):
    """Encode notes without a model."""
    import numpy as np

    return np.zeros([len(notes), sample_length // 512, 16])


def without_a_model(fastgen):
    """Let `fastgen.synthesize` decode with `Session` what `silence` encodes."""
    fastgen.encode = silence
    train = Without(fastgen.tf.train, Saver=Saver)
    fastgen.tf = Without(fastgen.tf, Session=Session, train=train)
    names = ["X", "encoding", "init_ops", "predictions", "push_ops"]
    fastgen.load_fastgen_nsynth = lambda batch_size: dict(zip(names, names))


def told(function, *args):
    """Call a function; return its error, if it raises one, as text."""
    try:
        function(*args)
    except Exception as error:
        return "%s: %s" % (type(error).__name__, error)
    return None


def arguments(args):
    """Tell what `nsynth_generate` would decode, where to, and on which GPU."""
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
    return {"error": told(nsynth_generate.main), "calls": calls}


def generate(args):
    """Run `nsynth_generate` without a model; tell what it logged when, and when it saved.

    Of .wav files, whose --sample_length always was in samples.
    """
    from magenta.models.nsynth.wavenet import fastgen, nsynth_generate
    from tensorflow.python.platform import tf_logging

    without_a_model(fastgen)
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
    really, time.time = time.time, Session.clock
    try:
        nsynth_generate.console_entry_point()
    except SystemExit as exit:
        code = exit.code or 0
    finally:
        time.time = really
    return {"exit": code, "saves": saves, "lines": [x for x in lines if "Sample:" in x[1]]}


def save_embeddings(args):
    """Run `nsynth_save_embeddings` without a model; tell the error if there is one."""
    from magenta.models.nsynth.wavenet import nsynth_save_embeddings

    nsynth_save_embeddings.encode = silence
    nsynth_save_embeddings.FLAGS(["nsynth_save_embeddings"] + args.flags)
    return {"error": told(nsynth_save_embeddings.main)}


def draw(args):
    """Tell what `sample_categorical` draws from `mass` [draws, 256] with `uniform` [draws]."""
    import numpy as np
    from magenta.models.nsynth.wavenet import fastgen

    with np.load(args.arrays) as arrays:
        mass, uniform = arrays["mass"], arrays["uniform"]
    np.random.rand = lambda count: uniform[:count]
    return {"codes": fastgen.sample_categorical(mass)[:, 0].astype(int).tolist()}


def import_magenta(args):
    """Tell whether `import magenta` works, and what of Magenta it brings along."""
    error = told(__import__, "magenta")
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
    parser.add_argument("--arrays", help="of draw")
    parser.add_argument("--seconds", type=float, default=0.0, help="that each step takes")
    args, args.flags = parser.parse_known_args()
    print(json.dumps(COMMANDS[args.command](args)))


if __name__ == "__main__":
    main()
