"""The registry: MLflow runs, model versions, the gate, promotion and its audit trail."""
