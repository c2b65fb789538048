"""Read a TensorFlow checkpoint with TensorFlow 1 or 2, under Python 2.7 or 3.

`read_checkpoint.py PREFIX` prints the names and shapes of the variables as JSON.
`read_checkpoint.py PREFIX -` reads names from standard input and writes these variables to standard
output as concatenated .npy files. The exit code is 3 if the files are damaged.
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
