"""What server processes know of each other: leases, and questions about each other's sockets."""
