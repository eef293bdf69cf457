"""What goes over the wire. Field names, letter case and order are part of the contract with clients."""
