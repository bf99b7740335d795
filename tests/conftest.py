"""What every test needs before transformers is imported."""

from __future__ import annotations

import architectures

architectures.mend_torchvision()
