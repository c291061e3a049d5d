"""What runs amount to: read, compared over their seeds, drawn and written down; no torch.

``runs`` reads folders, ``statistics`` knows numbers only, ``questions`` joins the two; ``figures``,
``provenance`` and ``homework`` show what came out, ``page`` puts it together.
"""
