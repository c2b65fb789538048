"""Save weights like TensorFlow's training does, with slots, averages and a step.

`tensorflow_checkpoint.py WEIGHTS.safetensors PREFIX` runs in a separate process, because TensorFlow
crashes in one process with Triton, which PyTorch's optimizers import.
"""

import sys

import numpy as np
import tensorflow as tf
from safetensors.numpy import load_file

v1 = tf.compat.v1
weights, prefix = sys.argv[1:]
with tf.Graph().as_default(), v1.Session() as session:
    for name, array in load_file(weights).items():
        for suffix in ("", "/ExponentialMovingAverage", "/Adam", "/Adam_1"):
            v1.get_variable(name + suffix, initializer=array * (2.0 if suffix else 1.0))
    v1.get_variable("global_step", initializer=np.int64(200_000))
    session.run(v1.global_variables_initializer())
    v1.train.Saver().save(session, prefix, write_meta_graph=False)
