"""The thin runtime of EdgeFormer bundles."""
