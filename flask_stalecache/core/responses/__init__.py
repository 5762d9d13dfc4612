"""What is sent of a response: all of it, a part, or a confirmation, and with which fields."""
