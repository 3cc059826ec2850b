"""Where bytes lie: paths, URLs, durable writing, leases."""
