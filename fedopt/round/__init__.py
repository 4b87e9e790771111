"""One round: the loop, its state, the federation behind it, and which updates are admitted."""
