"""Client drift and heterogeneity, measured: from the sums that aggregation makes anyway, from gradients at the
round's model now and then, from each client's own test share, from labels, and against a centralised run.
"""
