"""Ratios of the simulators to plain loops (`make bench`)."""
