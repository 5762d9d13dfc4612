"""What all front ends of one app share from its start on: directory, engine and version."""
