"""Every picture of the project, in one look: ``style`` has it, ``run`` and ``comparison`` draw in it.

Every function returns a ``Figure`` of its own, drawn without pyplot or global settings: safe in threads and
headless. Lengths are in inches from the bottom left corner, font sizes in points; shown at 100 px an inch all
text is readable. Names of classes and settings are drawn literally (a ``$`` starts no formula).
"""
