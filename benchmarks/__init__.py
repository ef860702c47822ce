"""Pair Sandboxweb with what people use today, in one run, and print ratios."""
