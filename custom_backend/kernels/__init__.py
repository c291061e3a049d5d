"""Faster forms of the operations in `custom_backend.functional`, by array module; see `array.FORMS`."""
