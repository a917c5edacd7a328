"""The testing kit, and checks before a deployment."""
