"""A local HTTP service over one bundle: `edgeformer-runtime serve BUNDLE`, with the extra `serve`; docs/serve.md."""
