"""The visitor's request, for all front ends: its values, its body, and the context in which functions are called."""
