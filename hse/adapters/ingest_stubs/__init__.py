"""What `make proto` generates from `proto/devices.proto`: the messages and the service between the planes. Never edited by hand."""
