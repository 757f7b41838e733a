"""Trained segmenters in formats other programs read."""

from hintseg.exporting.onnx_file import ExportReport, export_onnx

__all__ = ["ExportReport", "export_onnx"]
