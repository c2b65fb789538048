"""Measure Magenta's speed: measure.py steps CLIPS SECONDS, or measure.py encoder SAMPLES

Runs under Python 2.7. Prints as JSON the median duration of a step of CLIPS clips, or the duration
of encoding SAMPLES samples, in seconds. Uses random weights, which do not affect the speed, unless
--weights names the prefix of a checkpoint.
"""

import argparse
import json
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from magenta.models.nsynth.wavenet import fastgen

CHANNELS = 16  # channels of an encoding
LEAST, MOST = 5, 500  # steps to measure


def session():
    """Open a session with Magenta's configuration."""
    config = tf.ConfigProto(allow_soft_placement=True)
    config.gpu_options.allow_growth = True
    return tf.Session(config=config)


def steps(args):
    """Return the median duration of a step, including sampling, in seconds."""
    net = fastgen.load_fastgen_nsynth(batch_size=args.clips)
    durations = []
    with session() as sess:
        if args.weights:
            tf.train.Saver().restore(sess, args.weights)
        else:
            sess.run(tf.global_variables_initializer())
        sess.run(net["init_ops"])
        audio, encoding = np.zeros([args.clips, 1]), np.zeros([args.clips, CHANNELS])
        end = time.time() + args.seconds
        while len(durations) <= LEAST or (time.time() < end and len(durations) < MOST):
            begin = time.time()
            audio = fastgen.generate_audio_sample(sess, net, audio, encoding)
            durations.append(time.time() - begin)
    return float(np.median(durations[1:]))  # the first includes allocation


def encoder(args):
    """Return the duration of encoding `args.samples` samples, in seconds."""
    net = fastgen.load_nsynth(sample_length=args.samples)
    with session() as sess:
        sess.run(tf.global_variables_initializer())
        begin = time.time()
        sess.run(net["encoding"], {net["X"]: np.zeros([1, args.samples])})
        return time.time() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    subparsers = parser.add_subparsers()
    steps_parser = subparsers.add_parser("steps")
    steps_parser.add_argument("clips", type=int)
    steps_parser.add_argument("seconds", type=float)
    steps_parser.add_argument("--weights")
    steps_parser.set_defaults(function=steps)
    encoder_parser = subparsers.add_parser("encoder")
    encoder_parser.add_argument("samples", type=int)
    encoder_parser.set_defaults(function=encoder)
    args = parser.parse_args()
    print(json.dumps({"seconds": args.function(args)}))


if __name__ == "__main__":
    main()
