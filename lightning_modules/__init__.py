"""Everything torch: networks, data, the LightningModule and what surrounds its training."""
