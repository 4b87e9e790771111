"""Measures of client drift and heterogeneity: from sums of the updates in every round, from full gradients in some
rounds, from each client's own test share, from labels, and against a centralized run.
"""
