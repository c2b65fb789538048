"""Saves weights with Magenta's own Saver: save_checkpoint.py WEIGHTS.safetensors PREFIX

Runs under Python 2.7. Only the model's variables are saved, without an optimizer's slots.
"""

import argparse
import json
import os
import struct

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # nothing is computed

import numpy as np
import tensorflow as tf
from magenta.models.nsynth.wavenet import fastgen
from magenta.models.nsynth.wavenet.h512_bo16 import Config

ANY_DEVICE = tf.ConfigProto(allow_soft_placement=True)  # Magenta's graphs ask for a GPU


def read_safetensors(path):
    """Return the float32 arrays of a .safetensors file by name."""
    with open(path, "rb") as f:
        (length,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(length).decode("utf-8"))
        data = f.read()
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        if entry["dtype"] != "F32":
            raise ValueError("%s is %s, expected F32" % (name, entry["dtype"]))
        start, end = entry["data_offsets"]
        arrays[name] = np.frombuffer(data[start:end], dtype="<f4").reshape(entry["shape"])
    return arrays


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights")
    parser.add_argument("prefix")
    args = parser.parse_args()
    weights = read_safetensors(args.weights)
    with tf.Graph().as_default(), tf.Session(config=ANY_DEVICE) as session:
        fastgen.load_nsynth(sample_length=Config().ae_hop_length)
        variables = tf.global_variables()
        strange = {variable.op.name for variable in variables}.symmetric_difference(weights)
        if strange:
            raise ValueError("not this model's variables: %s" % ", ".join(sorted(strange)))
        # Each variable's own initializer, fed with the weights in the place of random numbers.
        session.run(
            [variable.initializer for variable in variables],
            {v.initializer.inputs[1]: weights[v.op.name] for v in variables},
        )
        tf.train.Saver().save(session, args.prefix, write_meta_graph=False, write_state=False)


if __name__ == "__main__":
    main()
