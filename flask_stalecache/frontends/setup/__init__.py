"""The parts of one app that all front ends share from its start: directory, engine and version."""
