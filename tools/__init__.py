"""What the builds of the apps and of the Raspberry Pi share."""
