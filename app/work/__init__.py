"""Workers' view of the work: claims, leases, the rows of workers."""
