"""What measures and trains: evaluation, benchmarks, tuning, fine-tuning. Nothing else imports it."""
