"""What will break on a device, found before one is at hand: checks of a bundle, each a function that gives findings."""
