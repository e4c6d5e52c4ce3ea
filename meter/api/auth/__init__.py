"""Authentication of requesters, and the restriction of the store to what a requester may see."""
