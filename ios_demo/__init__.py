"""The iOS app. Its Python half, `tools`, checks the Swift half on Linux."""
