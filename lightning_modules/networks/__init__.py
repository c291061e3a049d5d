"""One architecture a file, each written once against a namespace ``nn`` of layers.

``nn`` is ``torch.nn`` or anything with its names and signatures: an engine is a namespace.
"""
