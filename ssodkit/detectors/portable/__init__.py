"""Detectors as modules that can be written into a file, in operations that ONNX and TorchScript know.

A tracer writes down operations, not Python: every branch, count and loop stays what it was in its example. So here each
choice keeps a fixed number of rows, the missing ones with a score of -inf, and the sizes of images are tensors. That is
for export alone: training asks the host where that saves work.
"""
