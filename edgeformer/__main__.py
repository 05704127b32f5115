"""`python -m edgeformer`, which launchers of several processes need: `accelerate launch -m edgeformer compress ...`."""

from edgeformer.cli import main

main()
