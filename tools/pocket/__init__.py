"""How the pocket models came about: their world, the text about it, tokenizer, evaluation data, network, training.

Not part of the package: `kick_core.pocket` holds what was made here, frozen. `python -m tools.pocket.build` writes
tokenizer and evaluation data anew, byte for byte.
"""
