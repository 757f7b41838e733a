"""Networks, on torch and timm."""

from hintseg import lean as lean  # before any module here imports timm
