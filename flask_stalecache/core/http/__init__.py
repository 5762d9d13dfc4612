"""The rules of RFC 9110, 9111, 5861 and 9213 that a shared cache needs."""
