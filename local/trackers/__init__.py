"""Simulated trackers: five HTTP services with the APIs, limits, faults and traps of the real ones."""
