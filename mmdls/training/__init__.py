"""From tables to a trained network: inputs and targets as tensors, the training loop, the passes over images.

The estimators own the networks that are trained here. This file imports none of the modules, so that
:mod:`mmdls.training._epoch_callback` can be used without importing torch.
"""
