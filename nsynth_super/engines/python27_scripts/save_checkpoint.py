"""Saves weights with Magenta's own Saver: save_checkpoint.py WEIGHTS.safetensors PREFIX

Runs under Python 2.7. Only the model's variables are saved, without an optimizer's slots.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # nothing is computed

import tensorflow as tf
from magenta.models.nsynth.wavenet import fastgen
from magenta.models.nsynth.wavenet.h512_bo16 import Config
from weights import read_safetensors

ANY_DEVICE = tf.ConfigProto(allow_soft_placement=True)  # Magenta's graphs ask for a GPU


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
