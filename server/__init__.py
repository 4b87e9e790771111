"""The server side; filled by the deployment issue."""
