"""Save weights as a Magenta checkpoint: save_checkpoint.py WEIGHTS.safetensors PREFIX

Runs under Python 2.7. Saves only the model's variables, without optimizer slots.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # saving needs no GPU

import tensorflow as tf
from magenta.models.nsynth.wavenet import fastgen
from magenta.models.nsynth.wavenet.h512_bo16 import Config
from weights import read_safetensors

ANY_DEVICE = tf.ConfigProto(allow_soft_placement=True)  # Magenta's graphs request a GPU


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights")
    parser.add_argument("prefix")
    args = parser.parse_args()
    weights = read_safetensors(args.weights)
    with tf.Graph().as_default(), tf.Session(config=ANY_DEVICE) as session:
        fastgen.load_nsynth(sample_length=Config().ae_hop_length)
        variables = tf.global_variables()
        unexpected = {variable.op.name for variable in variables}.symmetric_difference(weights)
        if unexpected:
            raise ValueError("missing or unknown variables: %s" % ", ".join(sorted(unexpected)))
        # Run the variables' initializers with the weights instead of random numbers.
        session.run(
            [variable.initializer for variable in variables],
            {v.initializer.inputs[1]: weights[v.op.name] for v in variables},
        )
        tf.train.Saver().save(session, args.prefix, write_meta_graph=False, write_state=False)


if __name__ == "__main__":
    main()
