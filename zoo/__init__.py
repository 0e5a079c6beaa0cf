"""A zoo of generative models: every model is a LightningModule, registered by name."""

from zoo import registry

__all__ = ["registry"]
__version__ = "0.2.0"
