"""Fine-tuning encoders on the CPU: what is trained, on what, how, and writing what came of it.

Needs the extra ``finetune`` (torch), which only ``network``, ``contrastive``, ``distillation``,
``training`` and ``checkpoint`` import, and only when training starts. Knows texts as token ids; which
texts these are is the services' business.
"""
