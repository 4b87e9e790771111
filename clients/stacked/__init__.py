"""Clients side by side as one computation: weights stacked by layer, forward and backward written out by hand."""
