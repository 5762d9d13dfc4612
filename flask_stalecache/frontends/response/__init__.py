"""The response to a visitor, for all front ends: status headers, conditional answers, and marks of holes."""
