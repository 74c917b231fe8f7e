"""What Visionloop does: plain typed Python, free of the orchestrator."""
