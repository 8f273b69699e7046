"""Running statistics: small modules whose buffers are all their memory."""
