"""Webhooks: endpoints, deliveries, and the dispatcher that sends them."""
