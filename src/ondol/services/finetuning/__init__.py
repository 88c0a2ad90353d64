"""Fine-tuning a model on a collection: its pairs, its wrong passages, the run, the exam, the entry."""
