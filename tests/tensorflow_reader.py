"""Read a TensorFlow checkpoint with TensorFlow: `tensorflow_reader.py PREFIX OUTPUT.npz`."""

import sys

import numpy as np
import tensorflow as tf

prefix, output = sys.argv[1:]
reader = tf.train.load_checkpoint(prefix)
names = reader.get_variable_to_shape_map()
np.savez(output, **{name: reader.get_tensor(name) for name in names})
