"""Measurements of scans as columns: radiomics, and uptake in PET."""
