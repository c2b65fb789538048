"""Run functions of the real Magenta 1.1.7 for comparisons with the PyTorch engine.

Runs under Python 2.7. Each subcommand calls Magenta's own functions and saves their results in a
.npz file; nothing of the model is reimplemented. `oracle.py` is the Python 3 side.
"""

from __future__ import print_function

import argparse
import os
import platform
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pkg_resources
import tensorflow as tf
from magenta.models.nsynth import utils
from magenta.models.nsynth.wavenet import fastgen, nsynth_generate
from magenta.models.nsynth.wavenet.h512_bo16 import Config

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True  # Python 2 would write it next to the sources
sys.path.append(
    os.path.join(HERE, "..", "..", "..", "nsynth_super", "engines", "python27_scripts")
)

from weights import read_safetensors

tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)

TRAINED_ON = 6144  # length of Magenta's training clips, in samples
SILENCE = 128  # Magenta's codes are -128 to 127 instead of 0 to 255
LOUDEST = 255
HOP = Config().ae_hop_length
ANY_DEVICE = tf.ConfigProto(allow_soft_placement=True)  # Magenta's graphs request a GPU


def training_graph():
    """Build the variables of train.py's checkpoints: model, Adam's slots, averages and step."""
    step = tf.get_variable("global_step", [], tf.int32, trainable=False)
    model = Config().build({"wav": tf.zeros([1, TRAINED_ON])}, is_training=True)
    optimizer = tf.train.SyncReplicasOptimizer(
        tf.train.AdamOptimizer(),
        replicas_to_aggregate=1,
        variable_averages=tf.train.ExponentialMovingAverage(0.9999, num_updates=step),
        variables_to_average=tf.trainable_variables(),
    )
    optimizer.minimize(model["loss"], global_step=step)
    return step


def save_checkpoint(args):
    """Save weights with Magenta's Saver, optionally with the slots of training."""
    weights = read_safetensors(args.weights)
    with tf.Graph().as_default(), tf.Session(config=ANY_DEVICE) as session:
        if args.slots:
            step = training_graph()
            model = tf.trainable_variables()
        else:
            fastgen.load_nsynth(sample_length=HOP)
            model = tf.global_variables()
        names = {variable.op.name for variable in model}
        assert names == set(weights), sorted(names.symmetric_difference(weights))
        session.run(tf.global_variables_initializer())
        given = {variable: weights[variable.op.name] for variable in model}
        if args.slots:
            given[step] = 200000
        assignments = {variable.initializer: value for variable, value in given.items()}
        session.run(list(assignments), {op.inputs[1]: value for op, value in assignments.items()})
        tf.train.Saver().save(session, args.prefix)


def encode(args):
    """Encode `notes` [notes, samples] into `embeddings` [notes, frames, 16]."""
    with np.load(args.input) as given:
        notes = given["notes"]
    np.savez(args.output, embeddings=fastgen.encode(notes, args.prefix, notes.shape[1]))


def decode(args):
    """Decode `encodings` [clips, frames, 16], sampling with `uniforms` [clips, samples].

    Saves the input code (as quantized by Magenta), the logits and the sampled code of every step,
    `[samples, clips, ...]`. The sampled codes are fed back, or else `codes` [clips, samples].
    """
    with np.load(args.input) as given:
        encodings, uniforms = given["encodings"], given["uniforms"].astype(np.float64)
        forced = given["codes"] if "codes" in given.files else None
    fed, logits, drawn = [], [], []
    with tf.Graph().as_default(), tf.Session(config=ANY_DEVICE) as session:
        net = fastgen.load_fastgen_nsynth(batch_size=len(encodings))
        tf.train.Saver().restore(session, args.prefix)
        session.run(net["init_ops"])
        wanted = [
            net["predictions"],
            net["predictions"].op.inputs[0],
            net["quantized_input"],
            net["push_ops"],
        ]
        audio = np.zeros([len(encodings), 1])
        for t in range(uniforms.shape[1]):
            inputs = {net["X"]: audio, net["encoding"]: encodings[:, t // HOP]}
            predictions, step_logits, quantized, _ = session.run(wanted, inputs)
            codes = drawn_by_magenta(predictions, uniforms[:, t])
            fed.append(quantized[:, 0] + SILENCE)
            logits.append(step_logits)
            drawn.append(codes[:, 0])
            if forced is not None:
                codes = forced[:, t, np.newaxis]
            # Once in ten million samples, Magenta returns the invalid code 256.
            audio = utils.inv_mu_law_numpy(np.minimum(codes, LOUDEST) - float(SILENCE))
    np.savez(
        args.output,
        fed=np.array(fed, dtype=np.int16),
        logits=np.array(logits, dtype=np.float32),
        drawn=np.array(drawn, dtype=np.int16),
    )


def drawn_by_magenta(predictions, uniforms):
    """Return the codes that Magenta samples with these random numbers."""
    original = np.random.rand
    np.random.rand = lambda count: uniforms[:count]
    try:
        return fastgen.sample_categorical(predictions)
    finally:
        np.random.rand = original


def mulaw(args):
    """Save the codes of all 16-bit amplitudes, in order, and the amplitudes of all codes."""
    amplitudes = (np.arange(-32768, 32768) / 32768.0).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        codes = session.run(utils.mu_law(tf.constant(amplitudes)))
    inverse = utils.inv_mu_law_numpy(np.arange(256) - SILENCE)
    np.savez(args.output, codes=(codes + SILENCE).astype(np.int16), amplitudes=inverse)


def generated_samples(args):
    """Print how many samples `nsynth_generate` would generate from a .npy file."""
    samples = []
    fastgen.synthesize = lambda encodings, *_, **__: samples.append(encodings.shape[1] * HOP)
    flags = ["nsynth_generate", "--source_path", args.encoding, "--save_path", "."]
    nsynth_generate.FLAGS(flags + args.flags)
    nsynth_generate.main()
    print(samples[0])


def versions(args):
    """Save the versions of Magenta and its libraries."""
    np.savez(
        args.output,
        magenta=pkg_resources.get_distribution("magenta-gpu").version,
        tensorflow=tf.__version__,
        numpy=np.__version__,
        python=platform.python_version(),
    )


COMMANDS = {
    "save-checkpoint": (save_checkpoint, ["weights", "prefix"]),
    "encode": (encode, ["prefix", "input", "output"]),
    "decode": (decode, ["prefix", "input", "output"]),
    "mulaw": (mulaw, ["output"]),
    "generated-samples": (generated_samples, ["encoding"]),
    "versions": (versions, ["output"]),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    subparsers = parser.add_subparsers()
    for name, (function, arguments) in COMMANDS.items():
        command = subparsers.add_parser(name, help=function.__doc__.splitlines()[0])
        command.set_defaults(function=function)
        for argument in arguments:
            command.add_argument(argument)
        if name == "save-checkpoint":
            command.add_argument("--slots", action="store_true", help="add the slots of training")
        if name == "generated-samples":
            command.add_argument("flags", nargs="*", help="flags of nsynth_generate, after --")
    args = parser.parse_args()
    args.function(args)


if __name__ == "__main__":
    main()
