"""Measurements, side by side in one run: ``python -m benchmarks`` runs all of them. None of them passes or fails."""
