"""`edgeformer bench`: peers on the same weights, other machines over ssh and adb, and reports to look at."""
