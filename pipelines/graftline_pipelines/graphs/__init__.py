"""The KFP graphs, and how their tasks are placed on node pools."""
