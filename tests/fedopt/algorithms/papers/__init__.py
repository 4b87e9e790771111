"""Federated algorithms written from their papers in plain torch, without code of fedopt's own."""
