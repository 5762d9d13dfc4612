"""When background work runs, and in which thread: queues, thread pools, housekeeping, and the lane of refreshes that compute."""
