"""The time of day in tests with a fake clock."""

#: The moment at which such tests begin.
NOON = 1_800_000_000.0
