"""Grade exercises: ``python grade.py exercises/conv.py``, or a folder of them. Needs NumPy and no torch."""

from exercises._grade import main

if __name__ == "__main__":
    main()
