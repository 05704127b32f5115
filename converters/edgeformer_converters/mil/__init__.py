"""The reference for MIL, Core ML's intermediate language: it runs a package's programs in numpy, off macOS, too."""
