"""The frozen records that travel between the parts. Each is defined in one module here and imported from it."""
