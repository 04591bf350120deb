"""One file a question. Each has a `measure(context)` that returns a `Result`, or raises `NotMeasured` with the reason."""
