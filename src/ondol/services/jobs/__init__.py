"""Many items of one task, durable: handed in, worked in the background, read when done."""
