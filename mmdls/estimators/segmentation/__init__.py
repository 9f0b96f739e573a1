"""Lung and lesion masks from CT."""
