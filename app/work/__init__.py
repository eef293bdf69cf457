"""Work as workers see it: claims, leases, the rows of workers."""
