"""From tables to a trained network: inputs and targets as tensors, the loop, the passes over images.

Below the estimators, which own what is trained here. Files are imported one by one, so that who only watches a training
(:mod:`mmdls.training._epoch_callback`) needs no torch.
"""
