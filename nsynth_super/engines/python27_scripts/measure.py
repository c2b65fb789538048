"""How long Magenta takes here: measure.py steps CLIPS SECONDS, or measure.py encoder SAMPLES

Runs under Python 2.7. Prints the seconds of one step of CLIPS clips, the median of some, or of the
encoding of SAMPLES samples, as JSON. Without --weights, a checkpoint's prefix, the weights are
random numbers, which cost as much as others.
"""

import argparse
import json
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from magenta.models.nsynth.wavenet import fastgen

CHANNELS = 16  # of an encoding
LEAST, MOST = 5, 500  # steps


def session():
    """Open a session as Magenta does."""
    config = tf.ConfigProto(allow_soft_placement=True)
    config.gpu_options.allow_growth = True
    return tf.Session(config=config)


def steps(args):
    """Return how long a step takes, with the drawing of its codes."""
    net = fastgen.load_fastgen_nsynth(batch_size=args.clips)
    took = []
    with session() as sess:
        if args.weights:
            tf.train.Saver().restore(sess, args.weights)
        else:
            sess.run(tf.global_variables_initializer())
        sess.run(net["init_ops"])
        audio, encoding = np.zeros([args.clips, 1]), np.zeros([args.clips, CHANNELS])
        end = time.time() + args.seconds
        while len(took) <= LEAST or (time.time() < end and len(took) < MOST):
            begin = time.time()
            audio = fastgen.generate_audio_sample(sess, net, audio, encoding)
            took.append(time.time() - begin)
    return float(np.median(took[1:]))  # the first pays for memory and kernels


def encoder(args):
    """Return how long it takes to encode so many samples."""
    net = fastgen.load_nsynth(sample_length=args.samples)
    with session() as sess:
        sess.run(tf.global_variables_initializer())
        begin = time.time()
        sess.run(net["encoding"], {net["X"]: np.zeros([1, args.samples])})
        return time.time() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    subparsers = parser.add_subparsers()
    of_steps = subparsers.add_parser("steps")
    of_steps.add_argument("clips", type=int)
    of_steps.add_argument("seconds", type=float)
    of_steps.add_argument("--weights")
    of_steps.set_defaults(function=steps)
    of_encoder = subparsers.add_parser("encoder")
    of_encoder.add_argument("samples", type=int)
    of_encoder.set_defaults(function=encoder)
    args = parser.parse_args()
    print(json.dumps({"seconds": args.function(args)}))


if __name__ == "__main__":
    main()
