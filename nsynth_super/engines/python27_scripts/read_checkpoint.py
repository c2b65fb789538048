"""Reads a TensorFlow checkpoint with whatever TensorFlow there is. For Python 2.7 and 3.

`read_checkpoint.py PREFIX` prints the variables' names and shapes as JSON;
`read_checkpoint.py PREFIX -` writes those whose names come on standard input, one .npy after
another. It exits with 3 if the files are to blame, and not TensorFlow.
"""

from __future__ import print_function

import io
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
            for name in sys.stdin.read().splitlines():
                array = io.BytesIO()
                np.save(array, reader.get_tensor(name))
                getattr(sys.stdout, "buffer", sys.stdout).write(array.getvalue())
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        print(str(error) or "no reason given", file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    main()
