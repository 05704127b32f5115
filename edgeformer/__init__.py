"""EdgeFormer: one checkpoint to verified on-device bundles."""
