"""The model server: HTTP in, predictions out, over a release bundle. Neither torch nor mlflow."""
