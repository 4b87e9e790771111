"""Virtual clients in several processes that share the data and the clients' vectors."""
