"""The commands of the lab: bench, eval, tune, models finetune."""
