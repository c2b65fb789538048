"""Reads a TensorFlow checkpoint with TensorFlow 1.15, where nothing newer is. For Python 2.7.

`read_checkpoint.py PREFIX` prints the variables' names and shapes as JSON;
`read_checkpoint.py PREFIX OUTPUT.npz` leaves those in OUTPUT whose names come on standard input,
under their numbers: names of variables are no names of files.
"""

from __future__ import print_function

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf


def main():
    try:
        reader = tf.train.load_checkpoint(sys.argv[1])
        if len(sys.argv) == 2:
            print(json.dumps(reader.get_variable_to_shape_map()))
        else:
            names = sys.stdin.read().splitlines()
            arrays = {str(i): reader.get_tensor(name) for i, name in enumerate(names)}
            np.savez(sys.argv[2], **arrays)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        sys.exit(str(error).splitlines()[0])


if __name__ == "__main__":
    main()
